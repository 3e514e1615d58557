"""Export a network to other formats; each export is loaded back, and its output compared."""

from __future__ import annotations

import importlib.util
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from selfscale import files, model_files
from selfscale.errors import UserError, reason
from selfscale.files import new_folder
from selfscale.processes import silent_stderr

if TYPE_CHECKING:  # so that wrong arguments are reported without TensorFlow
    import keras

# From images to outputs, both float32 (N, H, W, 1).
Function: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

TOLERANCE = 1e-4
ODD = (33, 47)  # another size, which an export for one size only would not take


class Format(NamedTuple):
    """`write(model, path)` makes a file or a folder's content; `load(path)` makes it a function again."""

    suffix: str
    write: Callable[[keras.Model, Path], Any]
    load: Callable[[Path], Function]


class Exported(NamedTuple):
    """The size of an export in bytes, and the absolute difference of its output from the Keras model's."""

    size: int
    largest: float
    mean: float
    function: Function


def export(
    model: keras.Model,
    name: str,
    out: Path,
    image: NDArray[np.uint8] | None,
    calibration: Sequence[NDArray[np.uint8]] | None = None,
    fast: keras.Model | None = None,
) -> Exported:
    """Write the network to `out`, a file or for `saved_model` a folder; a former one is replaced.

    Args:
        fast: What is written in its place, see `fast.on_blocks`; it is compared with `model` all the same.
        image: uint8 (H, W). The export is run on it, and on a part of it of another size; None: on random
            inputs, for a network that takes no gray images.
        calibration: Images of the same kind. With them a TFLite file computes in 8-bit integers inside;
            its input and output are float32 all the same.

    Raises:
        UserError: `out` is in the way, the format lacks what the network needs, the output has another
            shape, or, unless quantized, the outputs differ by more than 1e-4; nothing is written then.
    """
    chosen = FORMATS[name]
    if calibration is not None:
        chosen = chosen._replace(write=lambda model, path: write_tflite(model, path, calibration))
    check_place(name, out)
    pictures = inputs_of(model, image)
    expected = [np.asarray(model(picture, training=False)) for picture in pictures]
    with new_place(out, folder=not chosen.suffix) as path:
        try:
            with silent_stderr(), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of converters about themselves
                chosen.write(fast or model, path)
                function = chosen.load(path)
                outputs = [function(picture) for picture in pictures]
        except Exception as error:  # each converter has its own ways to fail
            if isinstance(error, OSError) and error.errno is not None:  # the disk's, not the converter's
                raise
            raise UserError(f"--to {name}: this network cannot be converted: {reason(error)}") from error
        differences = [_difference(name, *pair) for pair in zip(outputs, expected, strict=True)]
        largest = float(np.max([difference.max() for difference in differences]))
        if calibration is None and not largest <= TOLERANCE:  # also where it is not a number
            raise UserError(
                f"--to {name}: what was written differs by {largest:.2g} from the Keras output, more than "
                f"{TOLERANCE:g}; nothing was kept"
            )
        size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    return Exported(size, largest, float(differences[0].mean()), function)


def inputs_of(model: keras.Model, image: NDArray[np.uint8] | None) -> list[NDArray[np.float32]]:
    """Two inputs of different sizes, where a network takes any; UserError if it takes or gives several."""
    if image is not None:
        parts = (image, image[: ODD[0], : ODD[1]])
        return [part[None, ..., None].astype(np.float32) / np.float32(255) for part in parts]
    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise UserError("this network has several inputs or outputs; use its .keras file itself")
    rng, shape = np.random.default_rng(0), model.inputs[0].shape[1:]
    sizes = [[axis or length for axis in shape] for length in ODD]
    return [rng.random((1, *size), dtype=np.float32) for size in sizes]


def _difference(name: str, output: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    if output.shape != expected.shape:
        raise UserError(
            f"--to {name}: what was written puts out {output.shape} instead of {expected.shape}; "
            "nothing was kept"
        )
    return np.abs(output - expected)


def check_place(name: str, out: Path) -> None:
    """Raise UserError unless `out` can be written, or replaced, without a loss of something else."""
    suffix = FORMATS[name].suffix
    if suffix and out.suffix != suffix:
        raise UserError(f"--out: {out} must end in {suffix} for --to {name}")
    if suffix and out.is_dir():
        raise UserError(f"--out: {out} is a folder; move it away or choose another name")
    if not suffix and out.is_dir() and any(out.iterdir()) and not (out / "saved_model.pb").is_file():
        raise UserError(f"--out: {out} has other things than an exported model in it; choose another name")


@contextmanager
def new_place(out: Path, folder: bool) -> Iterator[Path]:
    """Provide a new folder, or the name of a new file, that replaces `out` if the block ends well."""
    if folder:
        with new_folder(out) as path:
            yield path
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as beside:
        path = Path(beside) / out.name
        yield path
        path.replace(out)


def require(name: str) -> None:
    """Raise UserError if packages are missing that a format needs."""
    missing = [package for package in EXTRAS.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise UserError(
            f"--to {name}: {', '.join(missing)} is not installed; pip install 'selfscale[{name}]' adds it"
        )


# -- the formats ---------------------------------------------------------------------------------


def load_keras(path: Path) -> Function:
    from selfscale.inference.latency import plain

    return plain(model_files.read(path))


def write_saved_model(model: keras.Model, path: Path) -> None:
    model.export(path, format="tf_saved_model", verbose=False)


def load_saved_model(path: Path) -> Function:
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    return lambda images: loaded.serve(tf.constant(images)).numpy()


def write_tflite(
    model: keras.Model, path: Path, calibration: Sequence[NDArray[np.uint8]] | None = None
) -> None:
    """With `calibration`, all becomes 8-bit integers, in ranges taken from these images."""
    import tensorflow as tf

    options: dict[str, Any] = {}
    if calibration is not None:
        images = [image[None, ..., None] / np.float32(255) for image in calibration]
        options = {
            "optimizations": [tf.lite.Optimize.DEFAULT],
            "representative_dataset": lambda: ([image] for image in images),
            "target_spec": {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]},
        }
    model.export(path, format="litert", verbose=False, **options)


def load_tflite(path: Path) -> Function:
    import tensorflow as tf

    interpreter = tf.lite.Interpreter(model_content=path.read_bytes())
    (source,), (target,) = interpreter.get_input_details(), interpreter.get_output_details()

    def run(images: NDArray[np.float32]) -> NDArray[np.float32]:
        interpreter.resize_tensor_input(source["index"], images.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def write_onnx(model: keras.Model, path: Path) -> None:
    import tensorflow as tf
    import tf2onnx.optimizer

    # Not `model.export`: tf2onnx's own pass over Reshape loses, by the order of a set, the last Squeeze of
    # a network with a layer of one filter, and so puts out an axis too many.
    passes = dict(tf2onnx.optimizer._get_optimizers())
    del passes["reshape_optimizer"]
    images = model.inputs[0]
    signature = [tf.TensorSpec(images.shape, images.dtype, name=images.name)]
    tf2onnx.convert.from_keras(model, signature, optimizers=passes, output_path=str(path))


def load_onnx(path: Path) -> Function:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # as the other formats have, so that they can be compared
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    (source,) = session.get_inputs()
    return lambda images: session.run(None, {source.name: images})[0]


FORMATS = {
    "keras": Format(".keras", files.save_model, load_keras),
    "saved_model": Format("", write_saved_model, load_saved_model),
    "tflite": Format(".tflite", write_tflite, load_tflite),
    "onnx": Format(".onnx", write_onnx, load_onnx),
}
EXTRAS = {"onnx": ("onnx", "onnxruntime", "tf2onnx")}
