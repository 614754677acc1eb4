import torch
from torch.nn import functional as F

from elcrec.model.intents import AssignedIntents, ClusteredIntents, ItemIntents, LearnedIntents
from elcrec.ops.kmeans import best_kmeans, kmeans


def test_kmeans_finds_well_separated_clusters() -> None:
    generator = torch.Generator().manual_seed(0)
    means = torch.tensor([[10.0, 0.0], [0.0, 10.0], [-10.0, -10.0]])
    points = (means.repeat_interleave(50, 0) + torch.randn(150, 2, generator=generator))[
        torch.randperm(150, generator=generator)
    ]
    best = min(
        (kmeans(points, 3, torch.Generator().manual_seed(seed)) for seed in range(5)),
        key=lambda centers: torch.cdist(points, centers).min(1).values.sum(),
    )
    assert torch.cdist(means, best).min(1).values.max() < 1.0


def test_kmeans_lowers_the_distance_and_keeps_every_centre_finite_with_duplicates() -> None:
    points = torch.ones(20, 3)
    centers = kmeans(points, 4, torch.Generator().manual_seed(0))
    assert torch.isfinite(centers).all()


def test_centres_stay_on_the_unit_sphere_and_the_nearest_is_found() -> None:
    torch.manual_seed(0)
    intents = LearnedIntents(5, 8)
    intents.centers_KD.data.mul_(3)
    intents.after_step()
    torch.testing.assert_close(intents.centers_KD.norm(dim=1), torch.ones(5))
    states = torch.randn(40, 8)
    distances = torch.cdist(F.normalize(states, dim=1), intents.centers_KD)
    assert torch.equal(intents.nearest(states), distances.argmin(1))


def test_clustered_centres_are_the_k_means_and_a_lookup_their_direction() -> None:
    points = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)) + 3
    intents = ClusteredIntents(4, 8)
    intents.initialise(points, torch.Generator().manual_seed(1))
    assert torch.equal(intents.centers_KD, kmeans(points, 4, torch.Generator().manual_seed(1)))
    assert not list(intents.parameters()), "the optimiser must not move them"
    nearest = intents.nearest(points)
    assert torch.equal(nearest, torch.cdist(points, intents.centers_KD).argmin(1))
    torch.testing.assert_close(intents.lookup(nearest), F.normalize(intents.centers_KD[nearest], dim=1))


def test_an_assigned_history_is_scored_with_the_centres_of_its_intents() -> None:
    torch.manual_seed(0)
    intents = AssignedIntents(5, 16)
    states, near = torch.randn(40, 16), 4 * intents.centers_KD[3].expand(40, 16)

    torch.testing.assert_close(intents.shares(near).argmax(1), torch.full((40,), 3))
    torch.testing.assert_close(intents.shares(near).sum(1), torch.ones(40))
    # One intent alone, as sure as a temperature of 0.1 lets it be, weighs half the length of a state.
    sure = intents.shares(near)[:, 3].min().item()
    assert sure > 0.9
    torch.testing.assert_close(intents.shaped(states, near) - states, near / 2, atol=2 * (1 - sure), rtol=0)


def test_the_best_of_several_starts_is_kept() -> None:
    points = torch.randn(300, 4, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(2)
    runs = [kmeans(points, 12, generator) for _ in range(4)]
    distances = [torch.cdist(points, centers).min(1).values.square().sum().item() for centers in runs]
    assert min(distances) < distances[0]
    best = best_kmeans(points, 12, torch.Generator().manual_seed(2))
    assert torch.equal(best, runs[distances.index(min(distances))])


def test_items_belong_to_intents_by_the_softmax_of_their_cosines() -> None:
    torch.manual_seed(0)
    intents, table, intent = ItemIntents(3, 8), torch.randn(9, 8), torch.tensor([-1, 0, 0, 1, 1, 1, 2, -1, 2])
    intents.place(table, intent)
    cosines = F.cosine_similarity(table[:, None], intents.centers_KD[None], dim=2)
    torch.testing.assert_close(intents.shares(table), (cosines / 0.1).softmax(1))
    for number in range(3):
        mean = F.normalize(table[intent == number], dim=1).mean(0)
        torch.testing.assert_close(intents.centers_KD[number], F.normalize(mean, dim=0))
