"""The hashed field in closed form, and fitted to views of a procedural solid."""

import pytest
import torch
from solids import views_of_solid, worst_of_unseen_views

from sfumato.errors import NumericsError, UsageError
from sfumato.space.hash_grid import PRIMES, HashField, HashGrid, hashed
from sfumato.space.volume import fit


def test_a_grid_has_its_numbers_at_the_vertices_and_is_linear_between():
    grid = HashGrid(4, 2**10, 2)
    assert not grid.collides
    assert grid.entries == 125
    vertices = torch.tensor([[0, 0, 0], [1, 2, 3], [4, 4, 4], [3, 0, 4]])
    assert torch.allclose(
        grid(vertices / 4), grid.table[(vertices[:, 2] * 5 + vertices[:, 1]) * 5 + vertices[:, 0]]
    )
    with torch.no_grad():  # what is linear in x, y and z is interpolated exactly
        z, y, x = torch.meshgrid(*[torch.arange(5.0)] * 3, indexing="ij")
        grid.table.copy_(torch.stack([x + 2 * y - z, x * y * z], dim=-1).view(-1, 2))
    places = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
    x, y, z = (4 * places).unbind(1)
    assert torch.allclose(grid(places)[:, 0], x + 2 * y - z, atol=1e-5)
    assert torch.allclose(grid(places)[:, 1], x * y * z, atol=1e-4)


def test_vertices_of_equal_hashes_share_a_row_and_others_do_not():
    grid = HashGrid(64, 2**8, 1)
    assert grid.collides
    assert grid.entries == 256
    vertices = torch.randint(0, 65, (400, 3), generator=torch.Generator().manual_seed(0))
    rows = grid.rows(vertices)
    assert rows.min() >= 0
    assert rows.max() < 256
    for vertex, row in zip(vertices[:20].tolist(), rows[:20].tolist(), strict=True):
        x, y, z = (place * prime for place, prime in zip(vertex, PRIMES, strict=True))
        assert row == (x ^ y ^ z) % 256
    assert len(set(rows.tolist())) > 150
    assert torch.equal(rows, hashed(vertices, 256))
    same = grid(vertices / 64)[:, 0]
    assert torch.allclose(same, grid.table[rows, 0], atol=1e-9)


def test_the_gradient_of_a_field_is_that_of_finite_differences():
    field = HashField(1, levels=2, coarsest=2, finest=5, log_entries=6, hidden=4).double()
    for part in field.parameters():
        torch.nn.init.normal_(part, generator=torch.Generator().manual_seed(0))
    points = torch.rand(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    table = field.grids[1].table
    way = torch.randn(table.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    sum(part.sum() for part in field(points)).backward()
    start, values = table.detach().clone(), []
    for step in (1e-6, -1e-6):
        table.data = start + step * way
        values.append(sum(part.sum() for part in field(points)).item())
    assert (values[0] - values[1]) / 2e-6 == pytest.approx((table.grad * way).sum().item(), rel=1e-5)


def test_a_field_holds_nothing_outside_and_is_rough_where_its_fine_grids_are():
    field = HashField(2, extent=0.8, levels=2, coarsest=2, finest=8)
    density, features = field(torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.0, 0.0]]))
    assert density[0] > 0
    assert density[1] == 0
    assert features.shape == (2, 2)
    with torch.no_grad():
        for grid in field.grids:
            grid.table.fill_(0.0)
        field.grids[0].table.fill_(1.0)
        coarse = field.roughness()
        field.grids[0].table.fill_(0.0)
        field.grids[1].table.fill_(1.0)
    assert field.roughness().item() == pytest.approx(16 * coarse.item())


def test_a_hashed_field_fitted_to_views_of_a_solid_shows_views_that_it_has_not_seen():
    cameras, views = views_of_solid()
    # a quick one; with all levels, 200 steps and 2048 rays it is above 35 dB: see docs/shapes.md
    field = HashField(3, levels=4, coarsest=6, finest=32)
    fit(field, cameras, views, samples=32, rays=1024, steps=100, lr=0.1, roughness=0.0)
    assert worst_of_unseen_views(field) >= 23


def test_what_is_no_field_is_told():
    with pytest.raises(UsageError, match="4 levels of 8 to 8 cells: must be 2 or more, and finer"):
        HashField(1, levels=4, coarsest=8, finest=8)
    field = HashField(1, levels=2)
    field.network[0].bias.data[0] = float("nan")
    with pytest.raises(NumericsError, match="not finite"):
        field.check_finite()
