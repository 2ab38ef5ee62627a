"""One training stage without a notebook, on any number of processes.

    python -m qmsam_core.train params/laptop.yaml --stage 1
    torchrun --nproc_per_node=4 -m qmsam_core.train params/paper.yaml --stage 1 --set data_root=<folder>

Files are read and written where the notebooks keep them, unless options name other paths. If notebook 00 has
not run, its data split and its float model are made first. A finished stage is not trained again without
--force.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
import yaml

from ..allocator import MALLOC
from ..data.phantoms import write_phantoms
from ..data.split import make_parts
from ..params import Params, parse_override
from .pipeline import make_float_baseline, run_stage
from .processes import join_processes, local_world_size, rank
from .progress import MODEL, forget
from .trainer import TrainingError

PREPARED = "00_prepare"
FOLDERS = {1: "02_stage1_encoder", 2: "03_stage2_decoder", 3: "04_stage3_finetune"}


def main(arguments: list[str] | None = None) -> int:
    """Run the command line described in the module's docstring.

    Returns:
        Exit code: 0, 1 if training cannot continue, 2 on bad input, 130 if interrupted. Errors print one
        line.
    """
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("params", type=Path)
    parser.add_argument("--stage", type=int, required=True, choices=sorted(FOLDERS))
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override one parameter"
    )
    parser.add_argument("--data", type=Path, help="folder with index_train.npz and index_evaluation.npz")
    parser.add_argument("--parent", type=Path, help="checkpoint to start from")
    parser.add_argument("--float-model", type=Path, help="float parent, the teacher of stage 1")
    parser.add_argument(
        "--strategy", help="min, all, a number of slices a modality, or a share of each such as 0.1"
    )
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--force", action="store_true", help="train anew what is finished already")
    options = parser.parse_args(arguments)
    if arguments is None:
        keep_memory()
    try:
        params = Params.load(options.params, dict(parse_override(text) for text in options.set))
        join_processes(params)
        torch.manual_seed(params.seed)
        torch.set_num_threads(max(1, params.threads // local_world_size()))
        files = default_files(params, options.stage)
        chosen = {name: getattr(options, name) or files[name] for name in ("parent", "float_model")}
        data, output = options.data or files["data"], options.output or files["output"]
        float_model = data / "float" / MODEL
        wanting = float_model in chosen.values() and not float_model.is_file()
        if rank() == 0:
            split_data(params, data)
            if options.force:
                forget(output)
        if dist.is_initialized():
            dist.barrier()
        if wanting:
            make_float_baseline(params, data, float_model.parent)
        strategy = yaml.safe_load(options.strategy) if options.strategy else None
        run_stage(params, options.stage, data, output, strategy=strategy, log=log, **chosen)
    except (ValueError, OSError, TrainingError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except KeyboardInterrupt:
        print(
            "train: interrupted; what was saved is taken up when the same command runs again", file=sys.stderr
        )
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def keep_memory() -> None:
    """Restart the process with malloc settings that keep freed memory. They are read before Python starts."""
    if any(name not in os.environ for name in MALLOC):
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, "-m", "qmsam_core.train", *sys.argv[1:]])


def split_data(params: Params, folder: Path) -> None:
    """Make the slice indices of notebook 00 if they do not exist."""
    if not (folder / "index_train.npz").is_file():
        root = params.data_root or write_phantoms(folder / "phantoms", params.phantom_cases, params.seed)
        make_parts(
            root,
            folder,
            params.eval_fraction,
            params.seed,
            params.eval_cases,
            params.validation_root,
            params.testing_root,
        )


def default_files(params: Params, stage: int) -> dict[str, Path]:
    """Return the notebooks' paths for a stage, with keys data, output, parent and float_model."""
    float_model = params.run_dir / PREPARED / "float" / MODEL
    parent = float_model if stage == 1 else params.run_dir / FOLDERS[stage - 1] / MODEL
    return {
        "data": params.run_dir / PREPARED,
        "output": params.run_dir / FOLDERS[stage],
        "parent": parent,
        "float_model": float_model,
    }


def log(line: str) -> None:
    """Print a line at once, from the first process only."""
    if rank() == 0:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
