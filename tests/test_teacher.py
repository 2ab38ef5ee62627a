"""Embeddings of frozen encoders: computed once per image, bounded on disk, unchanged by the cache."""

import os

import numpy as np
import pytest
import torch
from small_data import write_data, write_indices

from qmsam_core.models import build_model
from qmsam_core.params import Params
from qmsam_core.quant import describe_model, save_model
from qmsam_core.train import CachedEncoder, EmbeddingCache, Teacher, run_stage


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def counted(model):
    """List the batch sizes with which the model's image encoder is called."""
    seen = []
    model.image_encoder.register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    return seen


def test_each_image_is_encoded_once_and_a_flipped_one_is_another(tmp_path, images):
    model = build_model("narrow", 32)
    seen, encoder = counted(model), CachedEncoder(model, "cpu", EmbeddingCache(tmp_path))
    first = encoder(images)
    assert torch.equal(encoder(images.flip(0)), first.flip(0)) and sum(seen) == 3
    encoder(images.flip(-1))
    assert sum(seen) == 6
    again = CachedEncoder(build_model("narrow", 32), "cpu", EmbeddingCache(tmp_path))  # as in a later run
    assert torch.equal(again(images), first) and sum(seen) == 6


def test_the_cache_changes_nothing_and_costs_half_a_float_s_precision(tmp_path, images):
    model = build_model("narrow", 32)
    caches = EmbeddingCache(tmp_path / "none", limit=0), EmbeddingCache(tmp_path / "all")
    plain, cached = (CachedEncoder(model, "cpu", cache) for cache in caches)
    assert torch.equal(plain(images), cached(images)) and torch.equal(plain(images), cached(images))
    with torch.no_grad():
        torch.testing.assert_close(plain(images), model.image_encoder(images), atol=1e-3, rtol=1e-3)


def test_another_model_s_embeddings_are_not_taken(tmp_path, images):
    cache = EmbeddingCache(tmp_path)
    first, other = (CachedEncoder(build_model("narrow", 32, seed=seed), "cpu", cache) for seed in (0, 1))
    assert not torch.equal(first(images), other(images))


def test_the_oldest_are_removed_first_and_the_bound_holds(tmp_path):
    one = torch.zeros(4, 8, 8, dtype=torch.float16)
    size = one.numel() * 2 + 128
    cache = EmbeddingCache(tmp_path, limit=10 * size)
    for k in range(25):
        cache.put(f"{k:02d}", one)
        os.utime(tmp_path / f"{k:02d}.npy", ns=(k, k))
        assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 10 * size
    kept = sorted(f.stem for f in tmp_path.iterdir())
    assert kept == [f"{k:02d}" for k in range(25 - len(kept), 25)] and len(kept) >= 8
    assert EmbeddingCache(tmp_path, limit=10 * size).size == len(kept) * size


def test_the_bound_is_the_folder_s_whoever_writes(tmp_path):
    one = torch.zeros(4, 8, 8, dtype=torch.float16)
    size = one.numel() * 2 + 128
    caches = [EmbeddingCache(tmp_path, limit=10 * size) for _ in range(2)]  # as in two training processes
    for k in range(40):
        caches[k % 2].put(f"{k:02d}", one)
        assert sum(f.stat().st_size for f in tmp_path.iterdir()) <= 10 * size


def test_the_folder_is_not_counted_at_every_embedding(tmp_path, monkeypatch):
    counted, files = [], EmbeddingCache.files
    monkeypatch.setattr(EmbeddingCache, "files", lambda self: (counted.append(1), files(self))[1])
    one = torch.zeros(4, 8, 8, dtype=torch.float16)
    caches = [EmbeddingCache(tmp_path, limit=640 * (one.numel() * 2 + 128)) for _ in range(2)]
    for k in range(100):
        caches[0].put(f"{k:02d}", one)
    assert len(counted) == 2 + 100 // 10 - 1
    assert caches[1].size == 0
    for k in range(11):
        caches[1].put(f"second {k}", one)
    assert caches[1].size == 111 * (one.numel() * 2 + 128)  # it has recounted the folder


def test_an_embedding_larger_than_the_bound_is_not_kept(tmp_path):
    EmbeddingCache(tmp_path, limit=100).put("a", torch.zeros(4, 8, 8, dtype=torch.float16))
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_counts_as_absent(tmp_path, images):
    encoder = CachedEncoder(build_model("narrow", 32), "cpu", EmbeddingCache(tmp_path))
    first = encoder(images)
    for path in tmp_path.glob("*.npy"):
        path.write_bytes(path.read_bytes()[:150])
    assert torch.equal(encoder(images), first)
    assert all(np.load(path).dtype == np.float16 for path in tmp_path.glob("*.npy"))


def test_a_full_disk_ends_the_keeping_but_not_the_training(tmp_path, images, monkeypatch):
    encoder = CachedEncoder(build_model("narrow", 32), "cpu", EmbeddingCache(tmp_path))
    monkeypatch.setattr(
        np, "save", lambda *arguments: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.warns(UserWarning, match="no longer kept .*No space left.*computes them anew"):
        assert encoder(images).isfinite().all()


def test_a_second_run_finds_all_embeddings_in_the_cache(tmp_path):
    data = write_indices(write_data(tmp_path / "cases"), tmp_path / "prepared")
    parent = tmp_path / "float.safetensors"
    save_model(build_model("narrow", 32), parent)
    setup = Params.check(
        dict(image_size=32, warmup_epochs=1, annealing_epochs=2, samples_per_modality=2, threads=1), "test"
    )

    def run(number, folder):
        return run_stage(setup, number, data, tmp_path / folder, parent=parent, float_model=parent)[0]

    first = run(1, "a")
    files = set((data / "embeddings").iterdir())
    assert files and describe_model(first)["teacher"] == "the float parent"
    run(1, "b")
    assert set((data / "embeddings").iterdir()) == files
    run(2, "c")  # its parent is the float model, so its frozen encoder is the teacher's
    assert set((data / "embeddings").iterdir()) >= files


def test_a_larger_teacher_sees_the_image_enlarged(tmp_path, images):
    teacher = Teacher(build_model("narrow", 64), "cpu", EmbeddingCache(tmp_path))
    embeddings, logits = teacher(images[:1], torch.tensor([[2.0, 2, 20, 20]]))
    assert embeddings.shape[-1] == 16 and logits.shape[-1] == 64
    assert torch.equal(teacher(images[:1], None)[0], embeddings)
