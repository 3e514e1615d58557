"""The pictures of a run, which MLflow's pages show with a slider over its steps; each is logged once."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from PIL import Image

from selfscale.tracking.store import Client

FOLDER = "images"
TAG = "mlflow.loggedImages"  # by which MLflow's pages know that there are any
SMALL = ".webp"  # the preview, which MLflow writes last
# As MLflow names them: KEY+step+N+timestamp+T+ID.png, and beside it KEY+...+ID+compressed.webp
NAMED = re.compile(
    r"(?P<whole>(?P<key>.+?)\+step\+(?P<step>\d+)\+timestamp\+[^+]+\+[^+]+?)(\+compressed)?\.\w+"
)
PREVIEW_SIDE = 256


class RunImages:
    """Those of one run; what was logged before a process was killed is found again."""

    def __init__(self, client: Client, run_id: str, *, resumed: bool) -> None:
        self.client, self.run_id = client, run_id
        self._files: dict[tuple[str, int], set[str]] = {}
        for listed in client.list_artifacts(run_id, FOLDER) if resumed else ():
            if found := NAMED.fullmatch(Path(listed.path).name):
                self._files.setdefault((found["key"], int(found["step"])), set()).add(Path(listed.path).name)

    def log(self, file: Path, key: str, step: int, timestamp: int) -> None:
        """Log a picture, once, however often it is called; `timestamp` in milliseconds since 1970."""
        files = self._files.get((key, step))
        with Image.open(file) as image:
            if not files:
                self.client.log_image(
                    self.run_id, image, key=key, step=step, timestamp=timestamp, synchronous=True
                )
            elif not any(name.endswith(SMALL) for name in files):
                self._complete(image, *files)
        self._files[key, step] = {f"{key}{SMALL}"}

    def _complete(self, image: Image.Image, name: str) -> None:
        """The preview of a picture that was cut off before it."""
        found = NAMED.fullmatch(name)
        assert found
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder, f"{found['whole']}+compressed{SMALL}")
            preview = image.convert("RGB")
            preview.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE))
            preview.save(small)
            self.client.log_artifact(self.run_id, str(small), FOLDER)
        self.client.set_tag(self.run_id, TAG, "True")
