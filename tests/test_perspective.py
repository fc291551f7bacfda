"""The pinhole camera and the painter against geometry on paper."""

from __future__ import annotations

import math

import pytest
import torch

from badnets.core import perspective
from badnets.core.errors import UsageError
from badnets.core.perspective import Pose, homography, pose_quad, project, warp

CORNERS = torch.tensor([[[0.0, 0], [1, 0], [1, 1], [0, 1]]])
TILTED = torch.tensor([[[3.0, 4], [25, 7], [27, 28], [1, 22]]])
FRAME = torch.tensor([[[0.0, 0], [32, 0], [32, 32], [0, 32]]])


def rgba(side, seed=0):
    return perspective.premultiplied(torch.rand(1, 4, side, side, generator=torch.Generator().manual_seed(seed)))


class TestPose:
    def test_a_frontal_sign_is_a_square_of_focal_length_times_side_over_distance(self):
        focal = 32 / math.tan(math.radians(30))
        half = focal * 0.75 / 5 / 2
        quad = pose_quad(Pose(5.0), fov_deg=60, size=(48, 64))[0]
        assert torch.allclose(quad, torch.tensor([32, 24]) + half * torch.tensor([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]), atol=1e-4)

    def test_a_turned_corner_lands_where_the_formula_says(self):
        yaw, focal = math.radians(40), 32 / math.tan(math.radians(30))
        depth = 3 + 0.375 * math.sin(yaw)
        expected = 32 + focal * (0.2 + 0.375 * math.cos(yaw)) / depth, 32 + focal * (-0.1 - 0.375) / depth
        quad = pose_quad(Pose(3.0, yaw_deg=40, right_m=0.2, down_m=-0.1), fov_deg=60, size=(64, 64))[0]
        assert quad[1].tolist() == pytest.approx(expected, abs=1e-4)

    def test_the_edge_that_goes_away_looks_shorter(self):
        def sides(**turn):
            top_left, top_right, bottom_right, bottom_left = pose_quad(Pose(2.0, **turn), fov_deg=60, size=(64, 64))[0]
            return [
                float(torch.linalg.vector_norm(a - b))
                for a, b in ((top_left, top_right), (top_left, bottom_left), (top_right, bottom_right))
            ]

        _, left, right = sides(yaw_deg=30.0)
        assert right < 0.9 * left
        assert sides(pitch_deg=30.0)[0] < 0.9 * sides(pitch_deg=-30.0)[0]
        rolled = pose_quad(Pose(2.0, roll_deg=90.0), fov_deg=60, size=(64, 64))
        assert torch.allclose(rolled, pose_quad(Pose(2.0), fov_deg=60, size=(64, 64)).roll(-1, 1), atol=1e-4)

    @pytest.mark.parametrize(
        ("pose", "fov", "says"),
        [
            (Pose(0.0), 60, "E-POSE expected a distance above 0 m, got 0"),
            (Pose(math.nan), 60, "E-POSE expected a distance above 0 m, got nan"),
            (Pose(-2.0), 60, "E-POSE expected a distance"),
            (Pose(0.2, yaw_deg=70.0), 60, "E-POSE expected a sign wholly before the camera"),
            (Pose(5.0, yaw_deg=180.0), 60, "E-POSE expected a sign that shows the camera its front"),
            (Pose(torch.tensor([5.0, 5.0]), right_m=torch.tensor([0.0, 9.0])), 60, "for image 1"),
            (Pose(5.0), 180, "E-FOV"),
        ],
    )
    def test_impossible_views_are_refused(self, pose, fov, says):
        with pytest.raises(UsageError, match=says):
            pose_quad(pose, fov_deg=fov, size=(32, 32))


class TestHomography:
    def test_corners_land_on_corners_and_lines_on_lines(self):
        h = homography(TILTED)
        assert torch.allclose(project(h, CORNERS), TILTED, atol=1e-4)
        middle = project(h, torch.tensor([[[0.5, 0.5]]]))[0, 0]
        # The diagonals of a square cross in its middle, and so do those of its picture.
        (ax, ay), (bx, by), (cx, cy), (dx, dy) = TILTED[0].tolist()
        system = torch.tensor([[cx - ax, bx - dx], [cy - ay, by - dy]])
        share = torch.linalg.solve(system, torch.tensor([bx - ax, by - ay]))[0]
        assert torch.allclose(middle, torch.tensor([ax, ay]) + share * torch.tensor([cx - ax, cy - ay]), atol=1e-4)

    @pytest.mark.parametrize("quad", [[[0, 0], [1, 0], [2, 0], [0, 1]], [[0, 0], [0, 0], [1, 1], [0, 1]], [[0, 0], [1, 1], [1, 0], [0, 1]]])
    def test_flat_and_crossed_quads_are_refused(self, quad):
        with pytest.raises(UsageError, match=r"E-QUAD .* for image 1"):
            homography(torch.cat([FRAME, torch.tensor([quad], dtype=torch.float32)]))


class TestWarp:
    @pytest.mark.parametrize("supersample", [1, 2, 3])
    def test_identity_changes_nothing(self, supersample):
        source = rgba(32)
        colour, alpha = warp(source, homography(FRAME), (32, 32), supersample=supersample)
        assert torch.allclose(torch.cat([colour, alpha], 1), source, atol=1e-5)

    def test_a_square_between_pixels_covers_its_share_of_them(self):
        square = FRAME / 4 + 8.25
        _, alpha = warp(torch.ones(1, 4, 64, 64), homography(square), (32, 32), supersample=4)
        assert alpha.sum() == pytest.approx(64, rel=1e-3)
        assert alpha[0, 0, 12, 12] == pytest.approx(1, abs=1e-5)
        assert alpha[0, 0, 12, 8] == pytest.approx(0.75, abs=0.1)
        assert alpha[0, 0, 12, 16] == pytest.approx(0.25, abs=0.1)

    @pytest.mark.parametrize("side", [127, 128])
    def test_far_away_a_pattern_finer_than_a_pixel_is_grey(self, side):
        board = (torch.arange(side)[:, None] + torch.arange(side)) % 2
        source = torch.cat([board.expand(1, 3, side, side).float(), torch.ones(1, 1, side, side)], 1)
        colour, alpha = warp(source, homography(FRAME / 4 + 11.3), (32, 32))
        assert colour[alpha.expand_as(colour) > 0.999] == pytest.approx(0.5, abs=0.06)

    def test_rows_do_not_see_each_other(self):
        h = homography(torch.cat([FRAME, TILTED, FRAME / 8 + 3, 2 * FRAME - 9]))
        source = rgba(64)
        together = warp(source, h, (32, 32))[0]
        alone = torch.cat([warp(source, h[i : i + 1], (32, 32))[0] for i in range(4)])
        assert torch.equal(together, alone)

    def test_gradients_reach_the_source_and_the_pose(self):
        yaw = torch.tensor([20.0], dtype=torch.float32, requires_grad=True)
        source = rgba(16).requires_grad_()

        def brightness(yaw):
            colour, alpha = warp(source, homography(pose_quad(Pose(1.0, yaw_deg=yaw), fov_deg=60, size=(32, 32))), (32, 32))
            return perspective.over(colour, alpha, torch.zeros(1, 3, 32, 32)).sum()

        brightness(yaw).backward()
        slope = (brightness(yaw.detach() + 1) - brightness(yaw.detach() - 1)) / 2
        assert yaw.grad.item() == pytest.approx(slope.item(), rel=0.1)
        assert source.grad.abs().sum() > 0

    def test_a_source_without_alpha_is_refused(self):
        with pytest.raises(UsageError, match="E-SOURCE"):
            warp(torch.ones(1, 3, 8, 8), homography(FRAME), (32, 32))
