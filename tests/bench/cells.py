"""Cells and recipes of any size, as the cases of the cycle run them."""

from pathlib import Path

TAGS_OF_DEVICE = 125
DEVICES_OF_RECIPE = 8
STEPS_OF_RECIPE = 50
DRIVERS = ("s7", "modbus", "opcua")

_TAGS = {
    "s7": ("DB1.DBD{word}", "DB2.DBW{word}", "DB3.DBX{word}.0"),
    "modbus": ("holding:{word}", "input:{word}", "discrete:{word}"),
    "opcua": ("ns=2;i={word}", "ns=3;i={word}", "ns=4;i={word}"),
}
_HOSTS = {
    "s7": "host: 127.0.0.1, port: {port}",
    "modbus": "host: 127.0.0.1, port: {port}",
    "opcua": 'url: "opc.tcp://127.0.0.1:{port}"',
}


def write(folder: Path, tags: int) -> Path:
    """A cell of this many tags (125 a device, the three protocols in turn), and a recipe for each eight devices that
    keeps 50 steps active; gives the cell file.

    Of a device's tags the last five are written: four by steps, one is the heartbeat; the others are half numbers, a
    quarter whole numbers, a quarter bits.
    """
    devices = tags // TAGS_OF_DEVICE
    names = [f"d{number}" for number in range(devices)]
    lines = ["cell: bench", "scan: 1 ms", "devices:"]
    for number, name in enumerate(names):
        driver = DRIVERS[number % len(DRIVERS)]
        port = 20_000 + number
        lines.append(f"  {name}: {{driver: {driver}, {_HOSTS[driver].format(port=port)}, every: 10 ms}}")
    lines.append("tags:")
    for number, name in enumerate(names):
        lines.append(f"  {name}:")
        lines += _tags(DRIVERS[number % len(DRIVERS)])
    lines.append(f"heartbeats: {{{', '.join(f'{name}: {name}.beat' for name in names)}}}")
    cell = folder / "cell.yaml"
    cell.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for first in range(0, devices, DEVICES_OF_RECIPE):
        name = f"recipe{first // DEVICES_OF_RECIPE}"
        text = _recipe(name, names[first : first + DEVICES_OF_RECIPE])
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return cell


def _tags(driver: str) -> list[str]:
    number, whole, bit = _TAGS[driver]
    lines: list[str] = []
    for place in range(TAGS_OF_DEVICE - 5):
        address, kind = (number, "float32") if place % 2 else (whole, "int16") if place % 4 else (bit, "bool")
        limits = ", unit: L, range: [0, 1000]" if kind == "float32" else ""
        lines.append(f'    t{place}: {{at: "{address.format(word=4 * place)}", type: {kind}{limits}}}')
    for place in range(TAGS_OF_DEVICE - 5, TAGS_OF_DEVICE):
        name = "beat" if place == TAGS_OF_DEVICE - 1 else f"out{place - TAGS_OF_DEVICE + 5}"
        address = number.format(word=4 * place).replace("input", "holding")
        lines.append(f'    {name}: {{at: "{address}", type: int32, access: write, failsafe: 0}}')
    return lines


def _recipe(name: str, units: list[str]) -> str:
    """50 branches side by side, each with one step that waits: for one tag, for a sum, for time, in a loop."""
    lines = [f"recipe: {name}", f"uses: [{', '.join(units)}]", "interlocks:"]
    lines += [f"  - {{when: {unit}.t1 > 900 L, do: hold, say: {{en: Too full}}}}" for unit in units]
    lines += ["steps:", "  - parallel:"]
    for place in range(STEPS_OF_RECIPE):
        unit, tag = units[place % len(units)], 4 * (place // len(units)) + 1
        lines.append(f"      b{place}:")
        condition = f"{unit}.t{tag} > 800 L and {unit}.t{tag + 1} == -1"
        if place % 3 == 1:
            condition = f"{unit}.t{tag} + {unit}.t{tag + 2} >= 1800 L"
        step = f'{{name: s{place}, until: "{condition}", within: 24 h}}'
        if place < 4 * len(units) and place % 3 == 2:
            step = step.replace("until:", f"during: {{{unit}.out{place // len(units)}: {place}}}, until:")
        if place == STEPS_OF_RECIPE - 1:
            step = "{wait: 24 h}"
        lines.append(f"        - {step}")
    return "\n".join(lines) + "\n"
