"""The scenes in which signs are photographed: the envelope of distance, angle and light, single troubles, and a drive past a sign.

A dash camera of 1,920 pixels over 60 degrees: at 5 m a sign has 250 of its pixels, at 15 m 83, at 30 m 42, at 60 m 21, at 100 m 12.
"""

from __future__ import annotations

from badnets.camera.scene import Scene

LIGHTS: dict[str, dict[str, float]] = {
    "daylight": {"noise": 0.01},
    "low sun": {"noise": 0.01, "exposure_ev": 0.7, "white_balance_mired": 25, "shadow": 0.6, "shadow_offset": 0.1, "glare": 0.35},
    "dusk": {"noise": 0.06, "exposure_ev": -1.8, "white_balance_mired": -25, "motion_px": 2.0},
}
TROUBLES: dict[str, dict[str, float]] = {
    "none": {},
    "faded by half": {"fading": 0.5},
    "badly printed": {"gamut": 0.5},
    "rain": {"rain": 0.8},
    "motion blur": {"motion_px": 6.0},
    "out of focus": {"defocus_px": 2.0},
    "JPEG quality 20": {"jpeg_quality": 20},
    "seen from below": {"pitch_deg": -25.0},
}
FILL = 0.8
NEAR_M, SIDE_M, ABOVE_M = 8.0, 3.0, 1.0


def scene(distance_m: float, yaw_deg: float = 0.0, light: str = "daylight") -> Scene:
    """One photograph of the envelope."""
    return Scene(distance_m=distance_m, yaw_deg=yaw_deg, fill=FILL, **LIGHTS[light])


def drive(frames: int, start_m: float = 60.0) -> tuple[Scene, ...]:
    """Frames of a car that approaches a sign at the roadside: as far again each time; what is near crosses the view faster."""
    steps = [start_m * (NEAR_M / start_m) ** (i / (frames - 1)) for i in range(frames)]
    there = {"right_m": SIDE_M, "down_m": -ABOVE_M}
    return tuple(scene(d).but(**there, motion_px=min(6.0, 20.0 / d), seed=i) for i, d in enumerate(steps))
