import onnxruntime

from edgewright_pipelines import machine

X86 = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx avx2 sse amx_int8\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd sve crc32\n"


def test_names_the_processor_and_the_instructions_that_decide_about_speed(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(machine, "CPUINFO", file)
    file.write_text(X86)
    x86 = machine.described()
    assert (x86["processor"], x86["simd"]) == ("Some CPU @ 2 GHz", "amx_int8 avx avx2")
    file.write_text(ARM)
    assert machine.described()["simd"] == "asimd sve"


def test_tells_the_runtime_and_works_without_cpuinfo(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CPUINFO", tmp_path / "none")
    found = machine.described()
    assert found["onnxruntime"] == onnxruntime.__version__
    assert found["simd"] == ""
