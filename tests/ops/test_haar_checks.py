"""Bad arguments: a TypeError or ValueError that names the argument, what came and what fits."""

import re

import pytest
import torch

from edgekd.ops import HaarBands, haar_dwt2, haar_idwt2, haar_weighted_mse

X = torch.zeros(2, 3, 5, 6)
BANDS = HaarBands(*(torch.zeros(2, 3, 3, 3) for _ in range(4)))


def loss(student=X, teacher=X, low=1.0, high=1.0, cell_weight=None):
    return haar_weighted_mse(student, teacher, low, high, cell_weight)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: haar_dwt2([1.0]), TypeError, "x is a list, expected a tensor"),
        (lambda: haar_dwt2(X[0]), ValueError, "x has shape (3, 5, 6), expected 4 dimensions"),
        (lambda: haar_dwt2(X.int()), TypeError, "x has dtype torch.int32, expected one of float16"),
        (lambda: haar_dwt2(X[:0]), ValueError, "x has shape (0, 3, 5, 6), expected every dimension"),
        (lambda: haar_dwt2(X, "reflect"), ValueError, "mode is 'reflect', expected one of zero"),
        (lambda: haar_idwt2(BANDS[:3]), TypeError, "bands must be HaarBands"),
        (lambda: haar_idwt2(BANDS._replace(vertical=X)), ValueError, "bands.vertical has shape (2, 3, 5, 6), expected"),
        (lambda: haar_idwt2(BANDS._replace(diagonal=BANDS[3].half())), TypeError, "bands.diagonal has dtype"),
        (lambda: haar_idwt2(BANDS, (7, 6)), ValueError, "size is (7, 6), expected H in (5, 6) and W in (5, 6)"),
        (lambda: haar_idwt2(BANDS, 6), TypeError, "size is 6, expected two integers"),
        (lambda: loss(student=X.long()), TypeError, "student has dtype torch.int64"),
        (lambda: loss(teacher=X[..., :4]), ValueError, "teacher has shape (2, 3, 5, 4), expected (2, 3, 5, 6)"),
        (lambda: loss(teacher=X.to("meta")), ValueError, "teacher is on meta, expected cpu as student"),
        (lambda: loss(low=float("nan")), ValueError, "weight_low is nan, expected a finite number"),
        (lambda: loss(high=-1), ValueError, "weight_high is -1, expected a finite number of at least 0"),
        (lambda: loss(low="1"), TypeError, "weight_low is a str, expected a number"),
        (lambda: loss(cell_weight=torch.ones(2, 1, 5, 6)), ValueError, "cell_weight has shape (2, 1, 5, 6), expected"),
        (lambda: loss(cell_weight=torch.ones(2, 1, 3, 3).long()), TypeError, "cell_weight is torch.int64, expected"),
        (lambda: loss(cell_weight=torch.ones(2, 1, 3, 3).requires_grad_()), ValueError, "cell_weight requires"),
        (lambda: loss(cell_weight=2.0), TypeError, "cell_weight is float, expected"),
    ],
)
def test_message_names_the_argument(call, error, message):
    with pytest.raises(error, match=re.escape(message)):
        call()
