"""Settings: one YAML file per application and two for training, then `--set section.key=value`.

Unknown keys are refused. base.py has what all sections share; app.py has the application and its cluster;
stages.py, scaling.py and testbed.py have one section for each stage; training.py has the files of main.py.
loading.py reads files; describe.py makes the JSON schemas, docs/settings.md and effective files.
"""

from deepscaler.settings.app import App, ClusterSection, Entry, Jaeger, Lease, Prometheus, Service
from deepscaler.settings.base import Feature, Moment, Positive, Section, Share
from deepscaler.settings.experiment import (
    TEST_SEEDS,
    ApplicationCase,
    Experiment,
    LoadCase,
    Sweep,
    Variant,
)
from deepscaler.settings.loading import load_section, load_settings
from deepscaler.settings.scaling import Explore, Floor, GuardRails, Hpa, PlanPrices, PlanSettings, Scale
from deepscaler.settings.stages import (
    CallsQuery,
    Collect,
    EntryPart,
    EntryQuery,
    Evaluate,
    Process,
    Query,
    Settings,
)
from deepscaler.settings.testbed import Load, MixChange, Serve, Testbed
from deepscaler.settings.training import (
    AdapGLASizes,
    AdapGLSSizes,
    AdapGLTSizes,
    ASTGCNSizes,
    Comparison,
    DataSettings,
    DiffusionSizes,
    GateSettings,
    GCNSizes,
    Graph,
    LSTMSizes,
    ModelConfig,
    NoSizes,
    Optimiser,
    STIDSizes,
    Train,
)

__all__ = [
    "TEST_SEEDS",
    "ASTGCNSizes",
    "AdapGLASizes",
    "AdapGLSSizes",
    "AdapGLTSizes",
    "App",
    "ApplicationCase",
    "CallsQuery",
    "ClusterSection",
    "Collect",
    "Comparison",
    "DataSettings",
    "DiffusionSizes",
    "Entry",
    "EntryPart",
    "EntryQuery",
    "Evaluate",
    "Experiment",
    "Explore",
    "Feature",
    "Floor",
    "GCNSizes",
    "GateSettings",
    "Graph",
    "GuardRails",
    "Hpa",
    "Jaeger",
    "LSTMSizes",
    "Lease",
    "Load",
    "LoadCase",
    "MixChange",
    "ModelConfig",
    "Moment",
    "NoSizes",
    "Optimiser",
    "PlanPrices",
    "PlanSettings",
    "Positive",
    "Process",
    "Prometheus",
    "Query",
    "STIDSizes",
    "Scale",
    "Section",
    "Serve",
    "Service",
    "Settings",
    "Share",
    "Sweep",
    "Testbed",
    "Train",
    "Variant",
    "load_section",
    "load_settings",
]
