"""How the report draws the claim about the physical world."""

from __future__ import annotations

from badnets.claims import _road
from badnets.claims._physical import ASR_OF, AWAY, CA_OF, CLASS, PATCH, SEEN, VARIED
from badnets.core.types import Chart

DISTANCE, ANGLE, LIGHT = "distance (m)", "angle (degrees)", "light"
FROM = "seen from (m)"
RIGHT, DOWN = "moved right (cm)", "moved down (cm)"
ENVELOPE = "ASR in photographs"
PLANTED, MOVED, MOVED_PATCH = "ASR by way of planting", "ASR of a moved sticker", "ASR of a moved patch"
TROUBLED, CHANGED, MISTAKEN, READ = "ASR in trouble", "ASR of a changed sticker", "sent to the target", "read right"


def charts(margin: float) -> list[Chart]:
    """The envelope as one map for each light, then what happens beside it."""
    maps = [
        Chart(
            title=f"Attack success rate of the sticker in {light}, by distance and angle",
            kind="map",
            quantities=[ENVELOPE],
            x=DISTANCE,
            y=ANGLE,
            margin=margin,
            where={LIGHT: light},
            x_title="distance in metres",
            y_title="angle in degrees",
        )
        for light in _road.LIGHTS
    ]
    table = Chart(title="Sign by sign, on the test images", kind="table", quantities=[CA_OF, ASR_OF], x=CLASS)
    return [*maps, *_bands(margin), *_heats(), *_dots(), table]


def _bands(margin: float) -> list[Chart]:
    planted = "Attack success rate of the sticker from in front, in daylight, by way of planting"
    drive = "A drive towards the sign: attack success rate frame by frame"
    return [
        Chart(title=planted, kind="band", quantities=[PLANTED], x=FROM, series="planted", margin=margin, x_title=FROM, y_title="ASR"),
        Chart(title=drive, kind="band", quantities=[SEEN], x=AWAY, series="sign", x_title="metres before the sign", y_title="ASR"),
    ]


def _heats() -> list[Chart]:
    sticker = "Attack success rate with the sticker at another place on the sign"
    patch = "Planted as a patch in the picture: attack success rate with the patch moved by so many pixels"
    return [
        *(
            Chart(
                title=f"{sticker} ({way})",
                kind="heat",
                quantities=[MOVED],
                x=RIGHT,
                y=DOWN,
                where={"planted": way},
                x_title="cm to the right",
                y_title="cm down",
            )
            for way in ("sticker at its place", VARIED, PATCH)
        ),
        Chart(title=patch, kind="heat", quantities=[MOVED_PATCH], x="dx", y="dy", x_title="pixels to the right", y_title="pixels down"),
    ]


def _dots() -> list[Chart]:
    return [
        Chart(title="Attack success rate of a changed sticker", kind="dots", quantities=[CHANGED], x="sticker", y_title="ASR"),
        Chart(title="Attack success rate when something goes wrong", kind="dots", quantities=[TROUBLED], x="trouble", y_title="ASR"),
        Chart(title="What else lies on signs: sent to the target", kind="dots", quantities=[MISTAKEN], x="on the sign", y_title="share"),
    ]
