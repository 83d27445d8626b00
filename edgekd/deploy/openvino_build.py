"""A graph becomes a file of OpenVINO's own format: ONNX goes in, an `.xml` with its `.bin` beside it comes out.

bf16 rounds a coordinate between 512 and 1024 px to 4 px. What a decoder computes from its boxes alone is therefore
marked in the file: OpenVINO keeps it in fp32 where the rest runs in bf16.
"""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from edgekd.backends import BackendName, Precision
from edgekd.deploy.build_options import EngineJob, InputShapes
from edgekd.errors import BackendUnavailable, BuildError
from edgekd.files import scratch_folder
from edgekd.graphs import BOXES, IMAGE_EMBEDDINGS

_MARK = {"name": "DisablePrecisionConversion", "version": "0", "value": "dynamic:bf16,f16"}
"""The attribute of OpenVINO's format for a layer that is not converted to bf16 or f16."""


def build(job: EngineJob) -> list[Path]:
    """Write `<target>.xml` and `<target>.bin`; returns the files written.

    Raises:
        BackendUnavailable: OpenVINO is not installed.
        BuildError: this CPU has no arithmetic of that precision, or OpenVINO cannot write the files.
    """
    core = _core()
    check_precision(core, job.precision)
    return write_network(core, job.graph, job.built, job.target.with_suffix(".xml"))


def version(backend: BackendName) -> str:
    """Return the version of OpenVINO."""
    import openvino

    return str(openvino.__version__)


def check_precision(core: Any, precision: Precision) -> None:
    """Refuse an arithmetic that this CPU lacks: the bundle could not be opened on the machine that it is built for.

    Raises:
        BuildError: see above.
    """
    offered = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision in ("bf16", "fp16") and precision.upper() not in offered:
        raise BuildError(
            f"{precision} was asked for and this CPU computes in {', '.join(sorted(offered))} only; "
            "build with `precision` auto"
        )


def write_network(core: Any, path: Path, inputs: InputShapes, target: Path) -> list[Path]:
    """Write the ONNX graph `path` to `target` (.xml) for inputs of these shapes, -1 for an open side.

    Raises:
        BuildError: OpenVINO cannot write; it does not say why, so the free space is named.
    """
    import openvino

    model = read_network(core, path)
    model.reshape({key: list(shape) for key, shape in inputs.items()})
    try:
        openvino.save_model(model, str(target), compress_to_fp16=False)
    except RuntimeError as error:
        free_mb = shutil.disk_usage(target.parent).free / 1e6
        raise BuildError(
            f"OpenVINO cannot write {target.name} ({str(error).strip().splitlines()[-1]}; {free_mb:.0f} MB are free); "
            "free space or give another output"
        ) from error
    return [target, target.with_suffix(".bin")]


def _core() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailable(f"OpenVINO cannot be imported ({error}); install it: pip install openvino") from error
    return openvino.Core()


def read_network(core: Any, path: Path) -> Any:
    """Read an ONNX graph as an `openvino.Model` whose coordinates stay in fp32."""
    model = core.read_model(str(path))
    if BOXES not in {port.get_any_name() for port in model.inputs}:
        return model
    import openvino

    # The mark can be set in a file only; the model keeps its weights mapped after the folder is gone.
    with scratch_folder("openvino") as scratch:
        file = scratch / "network.xml"
        layers = depending_on(model, BOXES) - depending_on(model, IMAGE_EMBEDDINGS)
        openvino.save_model(model, str(file), compress_to_fp16=False)
        _mark(file, layers)
        return core.read_model(str(file))


def depending_on(model: Any, input_name: str) -> set[str]:
    """Names of the layers that the values of an input reach; its shape does not count."""
    start = next(port.get_node() for port in model.inputs if port.get_any_name() == input_name)
    reached: set[str] = set()
    waiting = [start]
    while waiting:
        outputs = waiting.pop().outputs()
        readers = [port.get_node() for output in outputs for port in output.get_target_inputs()]
        new = [
            node for node in readers if node.get_type_name() != "ShapeOf" and node.get_friendly_name() not in reached
        ]
        reached.update(node.get_friendly_name() for node in new)
        waiting += new
    return reached


def _mark(file: Path, names: set[str]) -> None:
    tree = ET.parse(file)
    for layer in tree.iter("layer"):
        if layer.get("name") in names:
            facts = layer.find("rt_info")
            if facts is None:
                facts = ET.Element("rt_info")
                # The format's order: data, rt_info, input, output.
                layer.insert(0 if layer.find("data") is None else 1, facts)
            ET.SubElement(facts, "attribute", _MARK)
    tree.write(file)
