"""Sparse autoencoders on attention outputs z: harvest, train, measure; in SAELens' file format."""

from __future__ import annotations

from interp.saes.batches import Batches as Batches
from interp.saes.config import SAEConfig as SAEConfig
from interp.saes.core import SAE as SAE
from interp.saes.core import by_token as by_token
from interp.saes.evaluation import Evaluation as Evaluation
from interp.saes.evaluation import evaluate as evaluate
from interp.saes.files import load as load
from interp.saes.files import load_density as load_density
from interp.saes.files import save as save
from interp.saes.harvest import HarvestPlan as HarvestPlan
from interp.saes.harvest import harvest as harvest
from interp.saes.harvest import z_of as z_of
from interp.saes.log import Report as Report
from interp.saes.log import Reporting as Reporting
from interp.saes.log import read_log as read_log
from interp.saes.metrics import Reconstruction as Reconstruction
from interp.saes.metrics import density_histogram as density_histogram
from interp.saes.metrics import reconstruction as reconstruction
from interp.saes.model_losses import LossMeter as LossMeter
from interp.saes.planted import Planted as Planted
from interp.saes.planted import planted as planted
from interp.saes.probing import TASKS as TASKS
from interp.saes.probing import sparse_probing as sparse_probing
from interp.saes.recipe import JumpReLURecipe as JumpReLURecipe
from interp.saes.recipe import Recipe as Recipe
from interp.saes.splice import ReplaceOutputs as ReplaceOutputs
from interp.saes.store import Store as Store
from interp.saes.training import train as train

__all__ = [
    "SAE",
    "TASKS",
    "Batches",
    "Evaluation",
    "HarvestPlan",
    "JumpReLURecipe",
    "LossMeter",
    "Planted",
    "Recipe",
    "Reconstruction",
    "ReplaceOutputs",
    "Report",
    "Reporting",
    "SAEConfig",
    "Store",
    "by_token",
    "density_histogram",
    "evaluate",
    "harvest",
    "load",
    "load_density",
    "planted",
    "read_log",
    "reconstruction",
    "save",
    "sparse_probing",
    "train",
    "z_of",
]
