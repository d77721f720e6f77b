import itertools

import numpy as np
import pytest

from reports import theme

# Machado, Oliveira, Fernandes 2009, severity 1.0, on linear RGB.
VISION = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
WHITE = np.array([0.9505, 1.0, 1.089])
SCHEMES = {"light": theme.LIGHT, "dark": theme.DARK}


def linear(colour):
    """Linear RGB of a hex colour."""
    channels = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIE Lab of linear RGB."""
    ratio = XYZ @ np.clip(rgb, 0, 1) / WHITE
    x, y, z = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one, other):
    """WCAG contrast ratio."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@pytest.mark.parametrize("vision", VISION.values(), ids=VISION)
def test_series_stay_apart_for_every_eye(scheme, vision):
    """Any two series colours differ by at least 18 in Lab, seen with full or with any dichromatic vision."""
    seen = [lab(vision @ linear(scheme[name])) for name in theme.SERIES]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) >= 18


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_nothing_is_too_faint(scheme):
    """Series reach contrast 3 on a card; text reaches 4.5 on whatever it stands on (WCAG AA)."""
    assert min(contrast(scheme[name], scheme["surface"]) for name in theme.SERIES) >= 3
    texts = [(text, ground) for text in ("ink", "muted", "accent") for ground in ("page", "surface")]
    texts += [("band_ink", "band"), ("band_muted", "band")]
    assert {
        pair: contrast(*(scheme[name] for name in pair)) for pair in texts if contrast(*(scheme[n] for n in pair)) < 4.5
    } == {}


def test_each_light_colour_has_one_dark_twin():
    """The schemes name the same colours, and no light colour stands for two dark ones."""
    assert theme.LIGHT.keys() == theme.DARK.keys()
    for name, colour in theme.LIGHT.items():
        assert theme.dark_twins()[colour] == theme.DARK[name]
