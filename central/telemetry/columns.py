"""Batches of the wire as flat numpy columns for the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wire.batch import Batch


@dataclass(frozen=True, slots=True)
class Cells:
    """One row per value. ``value`` is NaN where there is none."""

    device: NDArray[np.uint32]
    point: NDArray[np.uint32]
    at_ms: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    batch: NDArray[np.int64]

    def as_dict(self) -> dict[str, NDArray[Any]]:
        """Column name → array."""
        return {name: getattr(self, name) for name in self.__slots__}


def flatten(
    batches: Sequence[tuple[int, Batch]],
    device_id: Callable[[str, str, str], int],
    point_id: Callable[[str], int],
) -> Cells:
    """Cells of several batches.

    Args:
        batches: (number of the batch in the store, batch).
        device_id: (site, kind, device) → number.
        point_id: name → number.
    """
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in Cells.__slots__}
    for number, batch in batches:
        for part in batch.parts:
            rows = len(part.row)
            if rows == 0:
                continue
            ids = np.array([device_id(batch.site, part.kind, name) for name in part.dev], dtype=np.uint32)
            devices = ids[np.array(part.row, dtype=np.intp)]
            times = np.array(part.dt, dtype=np.int64) + batch.t0
            for name, column in part.cols.items():
                parts["device"].append(devices)
                parts["point"].append(np.full(rows, point_id(name), dtype=np.uint32))
                parts["at_ms"].append(times)
                parts["value"].append(np.array(column.v, dtype=np.float64))
                codes = column.q if isinstance(column.q, list) else [column.q]
                quality = np.array(codes, dtype=np.uint8)
                parts["quality"].append(np.broadcast_to(quality, (rows,)) if len(codes) == 1 else quality)
                parts["batch"].append(np.full(rows, number, dtype=np.int64))
    kinds = {"device": np.uint32, "point": np.uint32, "at_ms": np.int64, "value": np.float64, "quality": np.uint8}
    return Cells(
        **{
            name: np.concatenate(arrays) if arrays else np.empty(0, dtype=kinds.get(name, np.int64))
            for name, arrays in parts.items()
        }
    )
