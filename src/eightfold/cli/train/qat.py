"""`eightfold qat`."""

from __future__ import annotations

from typing import Annotated

import typer

from eightfold.cli.train.options import Output, TrainingArguments, checkpoint_beside, training_command
from eightfold.compress.train.processes import is_main
from eightfold.errors import UsageError
from eightfold.extras import require
from eightfold.files import require_output


@training_command(epochs=3, rate=0.005)
def qat(
    arguments: TrainingArguments,
    output: Output,
    scheme: Annotated[str, typer.Option(help="affine, lsq, dorefa or pow2.")] = "affine",
    weight_bits: Annotated[int, typer.Option(help="Bits of weights, 2 to 8.")] = 8,
    activation_bits: Annotated[int, typer.Option(help="Bits of activations, 2 to 8.")] = 8,
    target: Annotated[str, typer.Option(help="INT8 target; decides the form of activations.")] = "cpu-x86",
    float_layer: Annotated[
        list[str] | None, typer.Option(help="Layer that stays float; wildcards; repeatable.")
    ] = None,
    eight_bit_layer: Annotated[
        list[str] | None, typer.Option(help="Layer that keeps 8 bits; wildcards; repeatable.")
    ] = None,
    calibration: Annotated[int, typer.Option(min=1, help="Training images for the first ranges.")] = 128,
    export_batch: Annotated[int, typer.Option(min=1, help="Batch of the graph.")] = 1,
) -> None:
    """Train a network with rounded weights and activations. Its Q/DQ graph is written.

    OUTPUT is the .onnx file. After an interruption, the same command resumes.

    Example: eightfold qat trained --data photos --weight-bits 4 --scheme lsq --epochs 3 -o int4.onnx
    """
    torch = require("torch", "train a network")
    from eightfold.compress.train.log import log_beside
    from eightfold.compress.train.qat.export import export_qat
    from eightfold.compress.train.qat.hook import QuantizationSchedule
    from eightfold.compress.train.qat.prepare import QatOptions, prepare_qat
    from eightfold.compress.train.qat.start_ranges import observed_ranges

    if output.suffix != ".onnx":
        raise UsageError(f"-o {output}", allowed="the name of an .onnx file")
    require_output(output, reads=[arguments.network, arguments.data, arguments.weights, arguments.preprocess])
    options = QatOptions(
        scheme, weight_bits, activation_bits, target, tuple(float_layer or ()), tuple(eight_bit_layer or ())
    )
    log = log_beside(output, arguments.log)
    subject = arguments.open()
    model = subject.module.eval()
    images = subject.images(calibration)
    start = subject.measure(model)
    ranges = observed_ranges(model, [(part,) for part in torch.split(images, 16)])
    print(prepare_qat(model, images[:1], ranges=ranges, options=options).describe())
    rounded = subject.measure(model)
    checkpoint = checkpoint_beside(output)
    subject.train(model, arguments.section, checkpoint, "quantizing", [QuantizationSchedule()], log)
    after = subject.measure(model)
    if is_main():
        export_qat(model, output, batch=export_batch, image_size=subject.loaded.size, targets=[target])
        checkpoint.unlink(missing_ok=True)
    print(f"{subject.metric} {start:.1%} in float, {rounded:.1%} rounded, {after:.1%} after {arguments.epochs} epochs")
    print(f"wrote {output}")
