"""Workunits and results, made from the project's templates as `create_work` makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.boinc.versions import digest, packed_path, stage
from tests.harness.boinc.xml import Element, block, copied, is_set, line, parse, text_of
from vm_launcher.boinc_project.signing import PrivateKey, sign_text

BOUNDS = ("rsc_fpops_est", "rsc_fpops_bound", "rsc_memory_bound", "rsc_disk_bound")
_DEFAULTS = {
    "rsc_fpops_est": 3e12,
    "rsc_fpops_bound": 3e15,
    "rsc_memory_bound": 5e8,
    "rsc_disk_bound": 1e9,
    "delay_bound": 7 * 86400.0,
}
_FOR_THE_SERVER = {*_DEFAULTS, "min_quorum", "target_nresults", "max_error_results"} | {
    *("max_total_results", "max_success_results", "batch", "size_class", "rsc_bandwidth_bound")
}
_OF_A_FILE = {"number", "physical_name", "gzip", "url", "md5_cksum", "nbytes", "gzipped_nbytes"}


@dataclass(frozen=True)
class Workunit:
    name: str
    app_name: str
    file_infos: str
    body: str
    """What stands in `<workunit>` besides name, application and bounds."""
    bounds: Mapping[str, float]

    def document(self) -> str:
        bounds = (line(name, self.bounds[name]) for name in BOUNDS)
        heading = line("name", self.name) + line("app_name", self.app_name)
        return self.file_infos + block("workunit", heading, *bounds, self.body)


@dataclass
class Result:
    """One copy of a workunit, for one host."""

    name: str
    workunit: Workunit
    file_infos: str
    body: str
    outputs: Mapping[str, str]
    """What its host uploads: physical by logical names."""
    host: int | None = None
    report: Report | None = None
    granted: float | None = None
    """Credit, once it was validated; None also if that was refused."""
    trickles_down: list[str] = field(default_factory=list)
    to_abort: bool = False


@dataclass(frozen=True)
class Report:
    """What a client says of a task that has ended."""

    result: str
    workunit: str
    host: int
    exit_status: int
    state: int
    cpu_seconds: float
    elapsed_seconds: float
    stderr: str
    files: Mapping[str, Path]
    """Uploaded ones by their logical names."""

    @property
    def succeeded(self) -> bool:
        """The client calls state 5 a result whose files are uploaded."""
        return self.exit_status == 0 and self.state == 5


class Templates:
    """`templates/<app>_in` and `<app>_out` of a project directory."""

    def __init__(self, project: Path, app_name: str) -> None:
        self._project = project
        self._app_name = app_name
        templates = project / "templates"
        self._input = parse((templates / f"{app_name}_in").read_text())
        self._output = (templates / f"{app_name}_out").read_text()

    def workunit(
        self,
        name: str,
        inputs: Mapping[str, bytes],
        downloads: str,
        command_line: str | None,
        bounds: Mapping[str, float],
    ) -> Workunit:
        """`inputs`: content by physical name, in the template's order."""
        infos, given = self._input.findall("file_info"), iter(inputs.items())
        names = [self._input_name(info, given) for info in infos]
        files = "".join(
            self._file_info(info, physical, downloads)
            for info, physical in zip(infos, names, strict=True)
        )
        described = self._input.find("workunit")
        if described is None:
            raise ValueError(f"the input template of {self._app_name} has no <workunit>")
        told = {key: float(text_of(described, key) or usual) for key, usual in _DEFAULTS.items()}
        body = _body(described, names, command_line)
        return Workunit(name, self._app_name, files, body, {**told, **bounds})

    def result(self, workunit: Workunit, number: int, salt: int, upload_url: str) -> Result:
        name = f"{workunit.name}_{number}"
        text = self._output.replace("<UPLOAD_URL/>", upload_url)
        for index in range(text.count("<OUTFILE_")):
            text = text.replace(f"<OUTFILE_{index}/>", f"{name}_r{salt}_{index}")
        template = parse(text)
        infos, described = template.findall("file_info"), template.find("result")
        if described is None:
            raise ValueError(f"the output template of {self._app_name} has no <result>")
        signed = "".join(self._signed(info) for info in infos)
        body = "".join(copied(part) for part in described)
        references = described.findall("file_ref")
        outputs = {text_of(one, "open_name"): text_of(one, "file_name") for one in references}
        return Result(name, workunit, signed, body, outputs)

    def _input_name(self, info: Element, given: Iterator[tuple[str, bytes]]) -> str:
        if constant := text_of(info, "physical_name"):
            return constant
        name, content = next(given)
        path = self._project / "input" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        stage(path, self._project, packed=is_set(info, "gzip"))
        return name

    def _file_info(self, info: Element, physical: str, downloads: str) -> str:
        path = self._project / "download" / physical
        url = f"{downloads}{physical}"
        lines = [line("name", physical), line("url", url)]
        if is_set(info, "gzip"):
            lines.append(line("gzipped_url", f"{url}.gz"))
            lines.append(line("gzipped_nbytes", packed_path(path).stat().st_size))
        lines += [line("md5_cksum", digest(path)), line("nbytes", path.stat().st_size)]
        lines += [copied(part) for part in info if part.tag not in _OF_A_FILE]
        return block("file_info", *lines)

    def _signed(self, info: Element) -> str:
        """With the certificate that an upload handler may ask for."""
        key = PrivateKey.from_text((self._project / "keys" / "upload_private").read_text())
        name, most = text_of(info, "name"), float(text_of(info, "max_nbytes"))
        text = f"<name>{name}</name><max_nbytes>{most:.0f}</max_nbytes>"
        signature = f"<xml_signature>\n{sign_text(text, key)}</xml_signature>\n"
        return block("file_info", *(copied(part) for part in info), signature)


def _body(described: Element, names: list[str], command_line: str | None) -> str:
    parts = [part for part in described if part.tag not in _FOR_THE_SERVER]
    references = iter(names)
    lines = [] if command_line is None else [line("command_line", command_line)]
    for part in parts:
        if part.tag == "file_ref":
            inside = (copied(child) for child in part if child.tag not in ("file_number",))
            lines.append(block("file_ref", line("file_name", next(references)), *inside))
        elif part.tag != "command_line" or command_line is None:
            lines.append(copied(part))
    return "".join(lines)
