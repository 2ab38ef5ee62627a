"""One training stage without a notebook, on any number of processes.

    python -m qmsam_core.train params/pretrain.yaml --stage 0 --set data_root=<folder>
    torchrun --nproc_per_node=4 -m qmsam_core.train params/paper.yaml --stage 1

Files are where the notebooks leave and expect them, unless named otherwise. Stage 0 splits the data first, where notebook 00 has not. What is
finished already is not trained again, unless --force says so.
"""

import argparse
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from ..allocator import MALLOC
from ..data.parts import make_parts
from ..data.phantoms import write_phantoms
from ..models.bundled import BUNDLED, bundled_checkpoint
from ..params import Params, parse_override
from .pipeline import run_stage
from .processes import join_processes, local_world_size, rank
from .progress import forget
from .step import TrainingError

FOLDERS = {0: "00_prepare/float", 1: "02_stage1_encoder", 2: "03_stage2_decoder", 3: "04_stage3_finetune"}


def main(arguments: list[str] | None = None) -> int:
    """Command line; see the module's docstring. One line and exit code 2 on bad input, 1 where training cannot go on, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m qmsam_core.train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("params", type=Path)
    parser.add_argument("--stage", type=int, required=True, choices=sorted(FOLDERS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override one parameter")
    parser.add_argument("--data", type=Path, help="folder with index_train.npz and index_evaluation.npz")
    parser.add_argument("--parent", type=Path, help="checkpoint to start from; for stage 0 open is the bundled one")
    parser.add_argument("--float-model", type=Path, help="float parent, the teacher of stage 1")
    parser.add_argument("--strategy", help="min, tenth, all or a number of slices a modality")
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
        if chosen["parent"] == Path(BUNDLED):
            if options.stage != 0:
                raise ValueError(f"--parent: found {BUNDLED}, float weights that only stage 0 begins with; expected what stage {options.stage - 1} left")
            chosen["parent"] = bundled_checkpoint(params.model)
        data, output = options.data or files["data"], options.output or files["output"]
        if options.stage == 0 and not (data / "index_train.npz").is_file() and rank() == 0:
            root = params.data_root or write_phantoms(data / "phantoms", params.phantom_cases, params.seed)
            make_parts(root, data, params.eval_fraction, params.seed, params.eval_cases, params.validation_root, params.testing_root)
        if options.force and rank() == 0:
            forget(output)
        if dist.is_initialized():
            dist.barrier()
        strategy = int(options.strategy) if (options.strategy or "").isdigit() else options.strategy
        run_stage(
            params,
            options.stage,
            data,
            output,
            strategy=strategy,
            log=log,
            **chosen,
        )
    except (ValueError, OSError, TrainingError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1 if isinstance(error, TrainingError) else 2
    except KeyboardInterrupt:
        print("train: interrupted; what was saved is taken up when the same command runs again", file=sys.stderr)
        return 130
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
    return 0


def keep_memory() -> None:
    """Start again with malloc settings that keep freed blocks in the process: they are read before Python starts."""
    if any(name not in os.environ for name in MALLOC):
        os.environ.update(MALLOC)
        os.execv(sys.executable, [sys.executable, "-m", "qmsam_core.train", *sys.argv[1:]])


def default_files(params: Params, stage: int) -> dict[str, Path | None]:
    """Where the study's notebooks keep what a stage reads and writes."""
    run = params.run_dir
    parents = {
        0: None,
        1: run / FOLDERS[0] / "model.safetensors",
        2: run / FOLDERS[1] / "model.safetensors",
        3: run / FOLDERS[2] / "model.safetensors",
    }
    return {
        "data": run / "00_prepare",
        "output": run / FOLDERS[stage],
        "parent": parents[stage],
        "float_model": parents[1],
    }


def log(line: str) -> None:
    """Print from the first process only, at once."""
    if rank() == 0:
        print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
