"""Where things lie, whatever directory the tests are run from."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""
TESTS = ROOT / "tests"
CONFIG = ROOT / "config"
DEMO = CONFIG / "demo.yaml"
"""The settings of the smallest application: Boutique, emulated, without a network."""
TRACES_OF_OTHERS = ROOT.parent / "shared" / "data"
"""Published traces that aren't ours to pass on. Tests that replay one are skipped where it is missing."""
WORLDCUP98 = TRACES_OF_OTHERS / "worldcup98_per_minute.csv"
WORLDCUP98_MISSING = (
    f"{WORLDCUP98} is missing: the Internet Traffic Archive publishes the log of the 1998 World Cup site; "
    "sendFlow/worldcup98.py makes requests per minute of it"
)
SCALEREVAL = TRACES_OF_OTHERS / "scalereval" / "result.zip"
SCALEREVAL_MISSING = (
    f"{SCALEREVAL} is missing: ScalerEval of WHU-AISE publishes it as result.zip in its repository"
)
