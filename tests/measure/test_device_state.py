"""What a device shows of itself: a Jetson drawn as files at the documented paths, a card as the words of nvidia-smi."""

from __future__ import annotations

from edgekd.environment import l4t_version
from edgekd.measure.device_state import DeviceState, read_state, state_warnings


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def draw_jetson(root, low="306000000", events="0", temperature="48562"):
    cpu, gpu = "sys/devices/system/cpu/cpufreq/policy0", "sys/class/devfreq/17000000.gpu"
    write(root, {
        "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
        f"{cpu}/scaling_cur_freq": "729600\n",
        f"{cpu}/scaling_min_freq": "1510400\n",
        f"{cpu}/scaling_max_freq": "1510400\n",
        f"{gpu}/cur_freq": "306000000\n",
        f"{gpu}/min_freq": f"{low}\n",
        f"{gpu}/max_freq": "624750000\n",
        "sys/class/devfreq/15340000.vic/cur_freq": "115200000\n",
        "sys/kernel/debug/bpmp/debug/clk/emc/rate": "2133000000\n",
        "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": f"{temperature}\n",
        "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
        "sys/class/thermal/thermal_zone1/temp": "-256000\n",
        "sys/class/hwmon/hwmon2/oc1_event_cnt": "0\n",
        "sys/class/hwmon/hwmon2/oc3_event_cnt": f"{events}\n",
    })  # fmt: skip


def test_a_jetson(tmp_path):
    draw_jetson(tmp_path)
    state = read_state(tmp_path, lambda command: "")
    assert (state.clocks["gpu"].now_mhz, state.clocks["gpu"].high_mhz) == (306.0, 624.8)
    assert state.clocks["cpu 0"].is_fixed and not state.clocks["gpu"].is_fixed
    assert set(state.clocks) == {"cpu 0", "gpu", "memory"} and state.clocks["memory"].now_mhz == 2133
    assert state.temperatures_c == {"cpu-thermal": 48.6}
    assert state.held_back == {"over-current oc1": 0, "over-current oc3": 0}
    assert state.clocks_are_fixed is False
    assert l4t_version(tmp_path) == "36.4.3"
    (warning,) = state_warnings(state, state, is_jetson=True)
    assert warning.endswith("run: sudo jetson_clocks")
    draw_jetson(tmp_path, low="624750000", events="3", temperature="71000")
    later = read_state(tmp_path, lambda command: "")
    assert later.clocks_are_fixed
    held, hotter = state_warnings(later.model_copy(update={"temperatures_c": {"cpu-thermal": 48.6}}), later, True), None
    assert len(held) == 1 and "cpu-thermal became 22 degrees hotter" in held[0]
    held, hotter = state_warnings(state.model_copy(update={"clocks": later.clocks}), later, True)
    assert "held back during the measurement (over-current oc3)" in held and "hotter" in hotter


def test_a_card_by_either_name_of_its_reasons(tmp_path):
    asked = []

    def old_driver(command):
        asked.append(command)
        return "1980, 9501, 61, 0x0000000000000024\n" if "throttle_reasons" in command[1] else ""

    state = read_state(tmp_path, old_driver)
    assert len(asked) == 2 and state.clocks["card"].now_mhz == 1980 and state.temperatures_c == {"card": 61}
    assert set(state.held_back) == {"card: power limit", "card: heat, by the driver"}
    assert state.clocks_are_fixed is None, "nvidia-smi shows no limits"
    assert len(state_warnings(DeviceState(), state, is_jetson=False)) == 2
    idle = read_state(tmp_path, lambda command: "210, 405, 35, 0x0000000000000001\n")
    assert idle.held_back == {} and state_warnings(idle, idle, is_jetson=False) == ()


def test_a_machine_that_shows_nothing(tmp_path):
    write(tmp_path, {"sys/class/thermal/thermal_zone0/temp": "broken", "etc/nv_tegra_release": "# Ubuntu\n"})
    assert read_state(tmp_path, lambda command: "[N/A], [N/A], 3, x\n") == DeviceState()
    assert l4t_version(tmp_path) is None
