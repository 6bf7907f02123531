"""What other tools call the same thing."""

import re

# Name elsewhere -> ours, of which a command may have only some.
FLAGS = {
    "model": ("student", "tflite"),
    "modelpath": ("student", "tflite"),
    "modelfile": ("student", "tflite"),
    "studentmodel": ("student",),
    "teachermodel": ("teacher",),
    "weights": ("student_weights",),
    "pretrained": ("student_weights",),
    "checkpoint": ("student_weights",),
    "lr": ("learning_rates",),
    "wd": ("weight_decay",),
    "numepochs": ("epochs",),
    "batch": ("batch_size",),
    "data": ("dataset",),
    "datapath": ("dataset",),
    "traindir": ("dataset",),
    "imagedir": ("dataset",),
    "imgsize": ("image_size",),
    "inputsize": ("image_size",),
    "inputshape": ("image_size",),
    "resolution": ("image_size",),
    "valsplit": ("validation_fraction",),
    "validationsplit": ("validation_fraction",),
    "augmentation": ("augment",),
    "out": ("output",),
    "outputdir": ("run_dir", "output"),
    "savedir": ("run_dir", "output"),
    "workdir": ("run_dir",),
    "logdir": ("run_dir",),
    "name": ("run_dir",),
    "device": ("target",),
    "board": ("target",),
    "platform": ("target",),
    "wbits": ("weight_bits",),
    "abits": ("activation_bits",),
    "actbits": ("activation_bits",),
    "precision": ("bits", "mixed_precision"),
    "quantization": ("bits",),
    "fp16": ("mixed_precision",),
    "bf16": ("mixed_precision",),
    "amp": ("mixed_precision",),
    "alpha": ("distillation_weight",),
    "kdweight": ("distillation_weight",),
    "flash": ("max_flash_bytes",),
    "maxsize": ("max_flash_bytes",),
    "ram": ("max_ram_bytes",),
    "arenasize": ("max_ram_bytes",),
}
# Device, or how its name begins -> target.
DEVICES = {
    "android": "phone",
    "ios": "phone",
    "mobile": "phone",
    "cpu": "phone",
    "raspberrypi": "phone",
    "tflite": "phone",
    "mcu": "microcontroller",
    "micro": "microcontroller",
    "tflm": "microcontroller",
    "arduino": "microcontroller",
    "esp32": "microcontroller",
    "stm32": "microcontroller",
    "rp2040": "microcontroller",
    "nrf52": "microcontroller",
    "cortexm": "microcontroller",
    "npu": "ethos_u",
    "vela": "ethos_u",
    "u55": "ethos_u",
}


def ours(name: str) -> tuple[str, ...]:
    """Our names for what a name means elsewhere; letters and digits count."""
    name = re.sub(r"[^a-z0-9]", "", name.casefold())
    beginning = next((device for device in DEVICES if name.startswith(device)), None)
    return FLAGS.get(name) or ((DEVICES[beginning],) if beginning else ())
