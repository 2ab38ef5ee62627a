"""Training and evaluation data of a stage, from the slice indices of notebook 00."""

from pathlib import Path

from torch.utils.data import DataLoader

from ..data.index import SliceIndex
from ..data.sampling import ModalityBalancedSampler, Strategy
from ..data.slices import SliceDataset
from ..data.transforms import EvalTransform, TrainTransform
from ..models import Sam
from ..params import Params
from .loop import Data
from .processes import rank, world_size


def evaluation_batches(
    params: Params, folder: Path, size: int, mask_size: int, each: int | None = None
) -> DataLoader:
    """Load this process's share of the fixed slices that score every epoch.

    Tables 7, 9 and 10 do not use them: they score whole cases.

    Args:
        folder: output folder of notebook 00, with `index_evaluation.npz`.
        size: px, side of the network's input.
        mask_size: px, side of the low-res mask.
        each: slices of each modality. None takes `params.epoch_slices`.
    """
    held_out = SliceIndex.load(folder / "index_evaluation.npz")
    judged = SliceDataset(
        held_out, EvalTransform(size, mask_size, params.interpolation(training=False)), params.seed
    )
    fixed = ModalityBalancedSampler(held_out, each or params.epoch_slices or "all", params.seed)
    chosen = sorted(set(fixed.epoch_slices().tolist()))
    return DataLoader(judged, 8, sampler=chosen[rank() :: world_size()])


def make_data(params: Params, folder: Path, model: Sam, strategy: Strategy | None = None) -> Data:
    """Make the training slices, the epoch's sampler and the evaluation batches of a quantised stage.

    Args:
        folder: output folder of notebook 00, with `index_train.npz` and `index_evaluation.npz`.
        model: gives the size of the low-res mask.
        strategy: see `samples_per_modality` in `data.sampling`. None takes `params.samples_per_modality`
            (Ns), or the paper's min rule if that is None. A share draws at least Ns slices.
    """
    train = SliceIndex.load(folder / "index_train.npz")
    proposed = params.samples_per_modality
    sampler = ModalityBalancedSampler(
        train, strategy or proposed or "min", params.seed, rank(), world_size(), proposed
    )
    jitter = params.box_jitter / 256 * params.image_size
    transform = TrainTransform(
        params.image_size, model.mask_size, params.interpolation(training=True), box_jitter=jitter
    )
    evaluation = evaluation_batches(params, folder, params.image_size, model.mask_size)
    return Data(SliceDataset(train, transform, params.seed), sampler, evaluation)
