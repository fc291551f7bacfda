"""One photograph to be taken: where the camera stands, what the light does, how the camera fails. Plain numbers; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from pydantic import Field

from badnets.core.config import Config


class Scene(Config):
    """A sign before a camera whose detector has found it and cut it out. By default nothing happens to the plane but the cut.

    Where it stands. `distance_m`: a 75 cm sign is a dozen pixels of a dash camera at 100 m, and nobody reads it from nearer than half a
    metre. `side_m`: of the square that is photographed; signs have 0.4 to 1.2 m, a photograph of one shows a little more. `yaw_deg`,
    `pitch_deg`, `roll_deg`: beyond 80 degrees a sign shows its edge; signs are not mounted upside down, and a car does not see them from
    far below. `right_m`, `down_m`: off the optical axis, across a wide road at most.

    Which camera. `fov_deg`: from a tele lens to a wide one. `pixels`: across the sensor. `fill`: the side of the sign, seen head on, as a
    share of the cut; 1 is the sign alone. `shift_x`, `shift_y`: how far the detector's box misses, as a share of the cut: a box that
    misses by half overlaps its sign too little to count as found.

    Which light. `exposure_ev`: stops above (or below) a right exposure; beyond three, nothing is left to see. `white_balance_mired`: error
    of the white balance, positive is too warm; 100 is a lamp taken for daylight. `shadow`: share of the light taken away on one side of
    an edge that runs at `shadow_deg` and passes the middle of the cut at `shadow_offset` (share of the cut); sky light always remains.
    `glare`: the sun in the foil as bright as so many times white, at (`glare_x`, `glare_y`) of the cut.

    What was printed. `gamut`: share of the saturation, and of the contrast against paper white and ink black, that a sticker's printer
    loses. `fading`: share of its ink that the sun has taken. Both touch the sticker only.

    How the camera fails. `motion_px` along `motion_deg`, and `defocus_px` (standard deviation), in pixels of the sensor: what crosses the
    view at half a metre a second is smeared over eight pixels at 2 m in 1/50 s; a lens set to infinity is sharp but for a pixel or two
    beyond a few metres. `noise`: standard deviation at mid-grey as a share of full scale; 0.15 is a
    telephone at night. `rain`: from none to a cloudburst. `jpeg_quality`: None is not compressed; below 10 nobody stores.

    `seed` chooses the grains of noise and the drops of rain.
    """

    distance_m: float = Field(5.0, ge=0.5, le=200)
    side_m: float = Field(0.75, ge=0.2, le=4)
    yaw_deg: float = Field(0.0, ge=-80, le=80)
    pitch_deg: float = Field(0.0, ge=-60, le=60)
    roll_deg: float = Field(0.0, ge=-45, le=45)
    right_m: float = Field(0.0, ge=-20, le=20)
    down_m: float = Field(0.0, ge=-10, le=10)
    fov_deg: float = Field(60.0, ge=5, le=120)
    pixels: int = Field(1920, ge=64, le=8192)
    fill: float = Field(1.0, ge=0.1, le=1)
    shift_x: float = Field(0.0, ge=-0.5, le=0.5)
    shift_y: float = Field(0.0, ge=-0.5, le=0.5)
    exposure_ev: float = Field(0.0, ge=-3, le=3)
    white_balance_mired: float = Field(0.0, ge=-100, le=100)
    shadow: float = Field(0.0, ge=0, le=0.9)
    shadow_deg: float = Field(30.0, ge=-180, le=180)
    shadow_offset: float = Field(0.0, ge=-1, le=1)
    glare: float = Field(0.0, ge=0, le=4)
    glare_x: float = Field(0.3, ge=0, le=1)
    glare_y: float = Field(0.3, ge=0, le=1)
    gamut: float = Field(0.0, ge=0, le=0.6)
    fading: float = Field(0.0, ge=0, le=0.9)
    motion_px: float = Field(0.0, ge=0, le=10)
    motion_deg: float = Field(0.0, ge=-180, le=180)
    defocus_px: float = Field(0.0, ge=0, le=2.5)
    noise: float = Field(0.0, ge=0, le=0.15)
    rain: float = Field(0.0, ge=0, le=1)
    jpeg_quality: int | None = Field(None, ge=10, le=100)
    seed: int = Field(0, ge=0)

    def taken(self, seeds: Iterable[int]) -> list[Self]:
        """The same photograph taken again and again: only the seed differs."""
        return [self.model_copy(update={"seed": seed}) for seed in seeds]
