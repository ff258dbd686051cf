"""Decodes CHF records with two independent decoders, made from the official ASN.1.

    decode_chf_records.py ASN1_FILE < RECORDS > ANSWERS

RECORDS has one record in hexadecimal digits per line. For each, ANSWERS has one line of JSON: the record as asn1tools
decodes it, or {"error": ...} when a decoder fails, when the two do not agree, or when encoding what was decoded does
not give the same octets.

Needs asn1tools and pycrate. The official file imports types of other modules of the same standard; pycrate has those,
compiled, so their definitions are taken from there.
"""

import contextlib
import importlib
import json
import re
import sys
import tempfile

import asn1tools
from pycrate_asn1dir import CDR
from pycrate_asn1c.asnproc import GLOBAL, PycrateGenerator, compile_text, generate_modules

# Imported and of no use to the records here.
UNUSED = {
    "LCSClientExternalID", "LCSClientInternalID", "PositionMethodFailure-Diagnostic", "UnauthorizedLCSClient-Diagnostic",
    "ObjectInstance", "AE-title", "RecipientAddress",
}
# Newer than what pycrate has, or of a kind (open types) that asn1tools does not know.
GIVEN = {
    "APIDirection": "ENUMERATED {invocation(0), notification(1)}",
    "ProseFunctionality": "ENUMERATED {directDiscovery(0), directCommunication(1)}",
    "ManagementExtension": "SEQUENCE {identifier OBJECT IDENTIFIER, significance [1] BOOLEAN DEFAULT FALSE,"
                           " information [2] EXPLICIT OCTET STRING}",
}


def definition(of):
    """The ASN.1 of a type that pycrate has compiled, with all that it refers to written out."""
    kind = of.TYPE
    if kind in ("SEQUENCE", "SET", "CHOICE"):
        parts = []
        for name, part in of._cont.items():
            tag = f"[{part._tag[0]}] " if part._tag else ""
            optional = " OPTIONAL" if part._opt else ""
            parts.append(f"{name} {tag}{definition(part)}{optional}")
        return f"{kind} {{{', '.join(parts)}}}"
    if kind in ("SEQUENCE OF", "SET OF"):
        return f"{kind} {definition(of._cont)}"
    if kind == "ENUMERATED":
        return f"ENUMERATED {{{', '.join(f'{name}({number})' for name, number in of._cont.items())}}}"
    return kind


def imported(name):
    if name in UNUSED:
        return "NULL"
    if name in GIVEN:
        return GIVEN[name]
    python_name = name.replace("-", "_")
    for module in dir(CDR):
        found = getattr(getattr(CDR, module), python_name, None)
        if module.endswith(("DataTypes", "Module")) and hasattr(found, "TYPE"):
            return definition(found)
    raise SystemExit(f"no definition of {name}")


def specification(official):
    """One text with the official modules and one that holds what they import."""
    # A comment that goes on in a second line without saying so.
    official = re.sub(r"(QosMonitoringReport\s*::=\s*SEQUENCE)\s*--.*?\n.*?\n\s*\{", r"\1\n{", official, flags=re.S)
    names = set()

    def redirect(block):
        own, text = set(), []
        for listed, module in re.findall(r"([^;]*?)\bFROM\s+([\w-]+)", re.sub(r"--.*", "", block.group(1))):
            listed = [name for name in re.findall(r"[A-Z][\w-]*", re.sub(r"\{[^}]*\}", "", listed))]
            if module == "GenericChargingDataTypes":
                text.append(", ".join(listed) + f" FROM {module}")
            else:
                own.update(name for name in listed if name not in ("SMSResult",))
            if "SMSResult" in listed and module != "GenericChargingDataTypes":
                text.append("SMSResult FROM GenericChargingDataTypes")
        names.update(own)
        text.append(", ".join(sorted(own)) + " FROM Imported")
        return "IMPORTS\n" + "\n".join(text) + ";"

    official = re.sub(r"IMPORTS(.*?);", redirect, official, flags=re.S)
    official = re.sub(r"^(\w+ChargingDataTypes)\s*\{[^}]*\}\s*DEFINITIONS", r"\1 DEFINITIONS", official, flags=re.M)
    definitions = "\n".join(f"{name} ::= {imported(name)}" for name in sorted(names))
    return official + f"\nImported DEFINITIONS IMPLICIT TAGS ::= BEGIN\n{definitions}\nEND\n"


def plain(value):
    """As JSON: octets as hexadecimal digits, choices as objects of one member."""
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, tuple):
        return {value[0]: plain(value[1])}
    if isinstance(value, bytes):
        return "0x" + value.hex()
    return value


def same(one, other):
    """Whether asn1tools and pycrate say the same, each in its own types."""
    if isinstance(one, dict) and isinstance(other, dict):
        names = {name for name in one if name != "significance"}
        return names == {n for n in other if n != "significance"} and all(same(one[n], other[n]) for n in names)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, tuple) and isinstance(other, tuple) and isinstance(one[0], str):
        return one[0] == other[0] and same(one[1], other[1])
    if isinstance(one, str) and isinstance(other, tuple):  # object identifiers
        return one == ".".join(map(str, other))
    if isinstance(one, float) and isinstance(other, tuple):  # reals
        return one == other[0] * other[1] ** other[2]
    if one is None or other in (None, 0):  # NULL
        return other in (None, 0)
    return one == other


def compiled_by_pycrate(text):
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        GLOBAL.clear()
        compile_text(text)
        generate_modules(PycrateGenerator, folder + "/chf_records.py")
        GLOBAL.clear()
        sys.path.insert(0, folder)
        return importlib.import_module("chf_records").CHFChargingDataTypes.CHFRecord


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        text = specification(file.read())
    tools = asn1tools.compile_string(text, "ber")
    pycrate = compiled_by_pycrate(text)

    for line in sys.stdin:
        octets = bytes.fromhex(line)
        try:
            decoded = tools.decode("CHFRecord", octets)
            pycrate.from_ber(octets)
            if not same(decoded, pycrate.get_val()):
                raise ValueError(f"asn1tools {decoded} and pycrate {pycrate.get_val()} differ")
            if tools.encode("CHFRecord", decoded) != octets:
                raise ValueError("encoding what asn1tools decoded gives other octets")
            print(json.dumps(plain(decoded)))
        except Exception as error:  # noqa: BLE001: whatever a decoder finds wrong is the answer
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}))


main()
