"""The labels inside a .tflite file: read back slot by slot, by the engine, and by MediaPipe in its own environment."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from edgeclf.exporting.tflite_metadata import with_metadata
from edgeclf_device import Classifier, prepare
from edgeclf_device._trailer_tflite import build
from edgeclf_device.artifact import read_artifact, write_artifact
from edgeclf_device.errors import ModelError

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
interpreter = pytest.importorskip("ai_edge_litert.interpreter")
flatbuffers = pytest.importorskip("flatbuffers")

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "tests" / "device" / "models"
QUICKSTART = ROOT / "quickstart"
SCHEMES = ("fp32", "w8a8")
LABELS = ("intact", "Riß", "dunkle Zelle", "ひび割れ")
ABOUT = {"name": "Zellen", "description": "Sorts solar cells; ≥ 16 px.", "licence": "CC BY-NC-SA 4.0"}
MEDIAPIPE = "mediapipe==1.2.2"

CLASSIFY = """
import json, sys
import mediapipe as mp
import numpy as np
from mediapipe.tasks.metadata import metadata_schema_py_generated as metadata
from mediapipe.tasks.metadata import schema_py_generated as schema
from mediapipe.tasks.python import BaseOptions, vision

model, images, answer = sys.argv[1:]
options = vision.ImageClassifierOptions(base_options=BaseOptions(model_asset_path=model))
with vision.ImageClassifier.create_from_options(options) as classifier:
    found = [
        [(one.category_name, one.score) for one in classifier.classify(image).classifications[0].categories]
        for image in (mp.Image(mp.ImageFormat.SRGB, array) for array in np.load(images).values())
    ]
parsed = schema.ModelT.InitFromPackedBuf(open(model, "rb").read())
(entry,) = (one for one in parsed.metadata if one.name == b"TFLITE_METADATA")
data = bytes(parsed.buffers[entry.buffer].data)
assert metadata.ModelMetadata.ModelMetadataBufferHasIdentifier(data, 0)
plain = lambda one: {k: v for k, v in vars(one).items() if v is not None} if hasattr(one, "__dict__") else (
    one.decode() if isinstance(one, bytes) else one.tolist())
fields = json.dumps(metadata.ModelMetadataT.InitFromPackedBuf(data), default=plain)
with open(answer, "w") as file:
    json.dump({"found": found, "metadata": json.loads(fields)}, file)
"""


class Table:
    """Generic access to a flatbuffer table by slot, without any schema."""

    def __init__(self, data: bytes, place: int) -> None:
        self.table = flatbuffers.table.Table(data, place)

    def _place(self, slot: int) -> int:
        offset = self.table.Offset(4 + 2 * slot)
        assert offset, f"slot {slot} is empty"
        return offset

    def has(self, slot: int) -> bool:
        return bool(self.table.Offset(4 + 2 * slot))

    def text(self, slot: int) -> str:
        return self.table.String(self.table.Pos + self._place(slot)).decode()

    def byte(self, slot: int) -> int:
        return self.table.Bytes[self.table.Pos + self._place(slot)]

    def child(self, slot: int) -> Table:
        return Table(self.table.Bytes, self.table.Indirect(self.table.Pos + self._place(slot)))

    def children(self, slot: int) -> list[Table]:
        start, count = self.table.Vector(self._place(slot)), self.table.VectorLen(self._place(slot))
        return [Table(self.table.Bytes, self.table.Indirect(start + 4 * place)) for place in range(count)]

    def floats(self, slot: int) -> list[float]:
        start, count = self.table.Vector(self._place(slot)), self.table.VectorLen(self._place(slot))
        return np.frombuffer(self.table.Bytes, "<f4", count, start).tolist()


def metadata_of(model: bytes) -> Table:
    parsed = schema.ModelT.InitFromPackedBuf(model)
    (entry,) = (one for one in parsed.metadata if one.name == b"TFLITE_METADATA")
    data = parsed.buffers[entry.buffer].data.tobytes()
    assert data[4:8] == b"M001"
    return Table(data, int.from_bytes(data[:4], "little"))


def run(model: bytes, images: np.ndarray) -> tuple[np.ndarray, dict]:
    """Raw outputs and the input's details."""
    engine = interpreter.Interpreter(model_content=model)
    engine.allocate_tensors()
    (image,), (scores,) = engine.get_input_details(), engine.get_output_details()
    outputs = []
    for one in images:
        engine.set_tensor(image["index"], one[np.newaxis])
        engine.invoke()
        outputs.append(engine.get_tensor(scores["index"])[0])
    return np.stack(outputs), image


def tree(value: object) -> object:
    """A packed object's fields as plain values, without metadata and buffers."""
    if isinstance(value, list):
        return [tree(one) for one in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    if hasattr(value, "__dict__"):
        return {key: tree(one) for key, one in vars(value).items() if key not in {"metadata", "buffers"}}
    return value


def edited(model: bytes, change) -> bytes:
    """The model after ``change`` of its object form."""
    parsed = schema.ModelT.InitFromPackedBuf(model)
    change(parsed)
    builder = flatbuffers.Builder()
    builder.Finish(parsed.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(params=SCHEMES)
def scheme(request) -> str:
    return request.param


@pytest.fixture
def model(scheme) -> bytes:
    return (MODELS / f"{scheme}.tflite").read_bytes()


@pytest.fixture
def models(scheme, model) -> list[bytes]:
    """The tiny model and, where `make quickstart` has been run, the quickstart's own, both without metadata."""
    own = QUICKSTART / "bundle" / f"solar-{scheme}.tflite"
    return [model, *([edited(read_artifact(own).model, remove_metadata)] if own.is_file() else [])]


def remove_metadata(parsed) -> None:
    """Take away the entry and its buffer, the last one."""
    for entry in [one for one in parsed.metadata if one.name == b"TFLITE_METADATA"]:
        parsed.metadata.remove(entry)
        assert entry.buffer == len(parsed.buffers) - 1
        parsed.buffers.pop()


def test_the_engine_gives_the_same_scores_before_and_after(models):
    for model in models:
        shape = interpreter.Interpreter(model_content=model).get_input_details()[0]["shape"][1:]
        images = np.random.default_rng(1).integers(0, 256, (8, *shape), np.uint8)
        before, after = (run(one, images)[0] for one in (model, with_metadata(model, **ABOUT)))
        assert len(np.unique(before)) > 4
        np.testing.assert_array_equal(after, before)


def test_tensors_operators_and_weights_stay_as_they_are(models):
    for model in models:
        before, after = (schema.ModelT.InitFromPackedBuf(one) for one in (model, with_metadata(model, **ABOUT)))
        assert tree(after) == tree(before)
        assert len(after.buffers) == len(before.buffers) + 1
        for one, two in zip(before.buffers, after.buffers, strict=False):
            assert (one.data is None) == (two.data is None)
            assert one.data is None or one.data.tobytes() == two.data.tobytes()
        assert [(one.name, one.buffer) for one in after.metadata[:-1]] == [
            (one.name, one.buffer) for one in before.metadata
        ]


def test_every_buffer_begins_at_a_multiple_of_sixteen_bytes(models):
    for model in models:
        packed = schema.Model.GetRootAs(with_metadata(model, **ABOUT))
        buffers = [packed.Buffers(place) for place in range(packed.BuffersLength())]
        starts = [one._tab.Vector(one._tab.Offset(4)) for one in buffers if not one.DataIsNone()]
        assert len(starts) > 5
        assert {start % 16 for start in starts} == {0}


def test_every_field_can_be_read_back_without_the_schema(model):
    root = metadata_of(with_metadata(model, **ABOUT))
    assert (root.text(0), root.text(1), root.text(5)) == tuple(ABOUT.values())
    assert root.text(7) == "1.0.0"
    assert not any(root.has(slot) for slot in (2, 4, 6))
    (graph,) = root.children(3)
    (image,), (scores,) = graph.children(2), graph.children(3)
    assert (image.text(0), image.text(1)) == ("image", "An image of 20×16 pixels, 0 to 255.")
    assert image.child(3).byte(0) == 2
    assert image.child(3).child(1).byte(0) == 1
    (unit,) = image.children(4)
    assert unit.byte(0) == 1
    assert len(unit.child(1).floats(0)) == len(unit.child(1).floats(1)) == 1
    assert scores.text(0) == "probability"
    assert scores.child(3).byte(0) == 1
    assert not scores.child(3).child(1).has(0)
    (labels,) = scores.children(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)


def test_without_a_licence_there_is_no_licence_field(model):
    assert not metadata_of(with_metadata(model, name="a", description="b")).has(5)


def test_normalizing_and_quantizing_a_pixel_as_stated_gives_the_pixel(models):
    pixels = np.arange(256, dtype=np.float32)
    for model in models:
        (unit,) = metadata_of(with_metadata(model, **ABOUT)).children(3)[0].children(2)[0].children(4)
        (mean,), (std,) = unit.child(1).floats(0), unit.child(1).floats(1)
        scale, zero_point = interpreter.Interpreter(model_content=model).get_input_details()[0]["quantization"]
        real = (pixels - np.float32(mean)) / np.float32(std)
        values = real / np.float32(scale) + zero_point if scale else real
        np.testing.assert_allclose(values, pixels, atol=1e-4)


def test_a_second_time_gives_the_same_bytes_and_other_words_replace_the_first(model):
    once = with_metadata(model, **ABOUT)
    assert with_metadata(model, **ABOUT) == once
    assert with_metadata(once, **ABOUT) == once
    other = with_metadata(once, name="other", description="words", labels_file="names.txt")
    assert metadata_of(other).text(0) == "other"
    assert b"Zellen" not in other
    assert other == with_metadata(model, name="other", description="words", labels_file="names.txt")


def test_the_named_file_lies_uncompressed_in_the_zip_behind_the_model(model):
    model = with_metadata(model, **ABOUT)
    whole = model + build(model, b"{}", LABELS)
    (labels,) = metadata_of(whole).children(3)[0].children(3)[0].children(6)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        entry = archive.getinfo(labels.text(0))
        assert entry.compress_type == zipfile.ZIP_STORED
        assert archive.read(entry).decode().splitlines() == list(LABELS)


def test_a_grey_model_states_a_grey_image(model):
    def grey(parsed):
        parsed.subgraphs[0].tensors[parsed.subgraphs[0].inputs[0]].shape = np.array((1, 16, 20, 1), np.int32)

    (image,) = metadata_of(with_metadata(edited(model, grey), **ABOUT)).children(3)[0].children(2)
    assert image.child(3).child(1).byte(0) == 2


def test_what_is_no_image_classifier_is_refused(model):
    def two_outputs(parsed):
        parsed.subgraphs[0].outputs = np.repeat(parsed.subgraphs[0].outputs, 2)

    def scores_as_input(parsed):
        parsed.subgraphs[0].inputs = parsed.subgraphs[0].outputs

    def weights_behind(parsed):
        parsed.buffers[2].offset, parsed.buffers[2].size = 4096, 64

    for change, message in (
        (two_outputs, "one input and one output"),
        (scores_as_input, "uint8 or float32 pixels"),
        (weights_behind, "inside the flatbuffer"),
    ):
        with pytest.raises(ModelError, match=message):
            with_metadata(edited(model, change), **ABOUT)
    with pytest.raises(ModelError, match="TFL3"):
        with_metadata(b"PK\x03\x04 and then nothing", **ABOUT)


def photos(count: int) -> list[tuple[np.ndarray, str]]:
    """Test photos of the quickstart with their labels, as many of each."""
    import cv2

    if not (QUICKSTART / "run" / "splits.csv").is_file():
        pytest.skip("no photos of solar cells: run `make quickstart`")
    with (QUICKSTART / "run" / "splits.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    chosen = [row for label in sorted({row["label"] for row in rows}) for row in rows if row["label"] == label]
    chosen = [chosen[place] for place in np.linspace(0, len(chosen) - 1, count).astype(int)]
    return [(cv2.imread(str(QUICKSTART / "data" / row["path"]))[..., ::-1], row["label"]) for row in chosen]


@pytest.fixture(scope="module")
def mediapipe(tmp_path_factory):
    """Run MediaPipe's ImageClassifier on RGB images, in an environment of its own."""
    folder = tmp_path_factory.mktemp("mediapipe")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", MEDIAPIPE], check=True)

    def classify(model: Path, images: list[np.ndarray]) -> dict:
        np.savez(folder / "images.npz", *(np.ascontiguousarray(image) for image in images))
        arguments = [python, "-c", CLASSIFY, model, folder / "images.npz", folder / "answer.json"]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        return json.loads((folder / "answer.json").read_text())

    return classify


@pytest.mark.slow
def test_mediapipe_names_the_labels_of_real_photos(scheme, mediapipe, tmp_path):
    chosen = photos(60)
    artifact = read_artifact(QUICKSTART / "bundle" / f"solar-{scheme}.tflite")
    path = tmp_path / f"solar-{scheme}.tflite"
    write_artifact(path, with_metadata(artifact.model, **ABOUT), artifact.manifest)
    images = [image for image, _ in chosen]
    with Classifier.open(path) as classify:
        own = [dict(classify(image).top(2)) for image in images]
        prepared = [prepare(image, artifact.manifest.preprocessing) for image in images]

    answer = mediapipe(path, prepared)
    for found, expected in zip(answer["found"], own, strict=True):
        assert dict(found) == pytest.approx(expected, abs=1e-5 if scheme == "fp32" else 1 / 256)
    assert answer["metadata"]["name"] == ABOUT["name"]
    (graph,) = answer["metadata"]["subgraphMetadata"]
    (normalization,) = (unit["options"] for unit in graph["inputTensorMetadata"][0]["processUnits"])
    assert normalization == ({"mean": [0], "std": [1]} if scheme == "fp32" else {"mean": [127], "std": [128]})
    assert graph["outputTensorMetadata"][0]["associatedFiles"][0]["name"] == "labels.txt"

    # MediaPipe's own resizing, on whole photos: bilinear without averaging, so scores differ a little.
    found = [dict(one) for one in mediapipe(path, images)["found"]]
    best, expected = ([max(one, key=one.get) for one in each] for each in (found, own))
    assert set(best) == {"defective", "functional"}
    assert np.mean(np.equal(best, expected)) >= 0.9
    assert np.mean(np.equal(best, [label for _, label in chosen])) >= 0.75
    assert all(0.5 <= max(one.values()) <= 1 for one in found)
