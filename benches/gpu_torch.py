#!/usr/bin/env python3
"""Times ResNet-50 in torch on a GPU, eager and compiled, to set beside `sconce bench engine --arch resnet50`.

usage: gpu_torch.py [--batches 1,8,32,128] [--precision f16] [--rounds 9] [--seconds 0.3] [--device cuda:0]
(needs torch built with CUDA, and torchvision)

torchvision's resnet50 with random weights, channels last, in evaluation mode without gradients. Every point (mode, batch) is
timed once in every round, so that all see the same machine; a figure is the median over rounds of the round's median call.
"with copies" is what Sconce's figure covers: f32 images in page-locked host memory go up, are cast, are computed, and f32
logits come down. "computed" leaves the copies out. Float32 products are not shortened to TF32, as Sconce's are not.
"""
import argparse
import time
from statistics import median

import torch
import torchvision

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def models(device, dtype):
    torch.manual_seed(1)
    eager = torchvision.models.resnet50(weights=None).eval().to(device, dtype, memory_format=torch.channels_last)
    return {"eager": eager, "compiled": torch.compile(eager, mode="max-autotune")}


def calls(model, batch, device, dtype):
    """What is timed, by name; each call ends when its result is there."""
    host = torch.rand(batch, 3, 224, 224).pin_memory() if device.type == "cuda" else torch.rand(batch, 3, 224, 224)
    resident = host.to(device, dtype).contiguous(memory_format=torch.channels_last)

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def with_copies():
        images = host.to(device, non_blocking=True).to(dtype, memory_format=torch.channels_last)
        return model(images).float().cpu()

    def computed():
        model(resident)
        wait()

    return {"with copies": with_copies, "computed": computed}


def time_call(call, seconds):
    """Median seconds of a call."""
    times, began = [], time.perf_counter()
    while not times or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return median(times)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", default="1,8,32,128")
    parser.add_argument("--precision", choices=sorted(DTYPES), default="f16")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--device", default="cuda:0")
    return parser.parse_args()


def main():
    args = arguments()
    device, dtype = torch.device(args.device), DTYPES[args.precision]
    batches = [int(batch) for batch in args.batches.split(",")]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    # Sizes are fixed, so cuDNN may look for its quickest way once.
    torch.backends.cudnn.benchmark = True
    points = {
        (mode, batch, what): call
        for mode, model in models(device, dtype).items()
        for batch in batches
        for what, call in calls(model, batch, device, dtype).items()
    }
    with torch.inference_mode():
        for call in points.values():
            for _ in range(3):
                call()
        rounds = [{place: time_call(call, args.seconds) for place, call in points.items()} for _ in range(args.rounds)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"ResNet-50, {args.precision}, channels last, torch {torch.__version__}, {name}")
    print("| mode | batch | images/s with copies | images/s computed |\n|---|---|---|---|")
    for mode in ("eager", "compiled"):
        for batch in batches:
            rate = {what: batch / median(taken[mode, batch, what] for taken in rounds) for what in ("with copies", "computed")}
            print(f"| {mode} | {batch} | {rate['with copies']:.0f} | {rate['computed']:.0f} |")


main()
