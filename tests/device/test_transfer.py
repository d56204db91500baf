import numpy as np
import torch

from simclr.device import transfer

CPU = torch.device("cpu")


def test_arrays_come_back_and_room_can_be_filled() -> None:
    arrays = {
        "flags": np.array([True, False, True]),
        "keys": np.array([-(2**63), 2**63 - 1]),
        "table": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::-1],
        "nothing": np.empty((0, 4), np.float32),
    }
    parcel = transfer.pack(arrays, CPU, room={"pixels": (torch.uint8, (2, 5))})
    parcel["pixels"][1] = 7
    assert set(parcel) == {*arrays, "pixels"}
    assert parcel["pixels"][1].tolist() == [7] * 5
    for name, array in arrays.items():
        assert parcel[name].dtype == torch.from_numpy(array.copy()).dtype
        assert np.array_equal(parcel[name].numpy(), array)
    assert parcel.to(CPU) is parcel
    assert parcel.get("missing") is None


def test_every_tensor_begins_where_a_gpu_can_load_it_by_vectors() -> None:
    parcel = transfer.pack({"a": np.zeros(3, np.uint8), "b": np.zeros(5, np.int64), "c": np.zeros(1)}, CPU)
    first = parcel["a"].data_ptr()
    assert [(parcel[name].data_ptr() - first) % 16 for name in parcel] == [0, 0, 0]
