from simclr.training.early_stopping import EarlyStopping, EarlyStoppingParams


def follow(accuracies: list[float], patience: int | None, min_gain: float) -> tuple[int, float, int]:
    """(validations until it stops, best accuracy, its epoch)."""
    stopping = EarlyStopping(EarlyStoppingParams(watch="knn_top1", patience=patience, min_gain=min_gain))
    for epoch, accuracy in enumerate(accuracies, 1):
        stopping.update(accuracy, epoch)
        if stopping.exhausted:
            break
    return epoch, stopping.best, stopping.best_epoch


def test_it_stops_after_patience_validations_without_a_gain() -> None:
    assert follow([0.5, 0.6, 0.6, 0.59, 0.9], patience=2, min_gain=0) == (4, 0.6, 2)


def test_a_gain_below_the_minimum_does_not_count() -> None:
    assert follow([0.5, 0.55, 0.58, 0.7, 0.7, 0.7], patience=2, min_gain=0.1) == (3, 0.5, 1)
    assert follow([0.5, 0.55, 0.65, 0.7, 0.7], patience=2, min_gain=0.1) == (5, 0.65, 3)


def test_without_patience_it_never_stops() -> None:
    stopping = EarlyStopping(EarlyStoppingParams(watch="knn_top1", patience=None, min_gain=0))
    assert not stopping.active
    assert follow([0.5] + [0.1] * 50, patience=None, min_gain=0) == (51, 0.5, 1)
