"""Sparse autoencoders on attention outputs z: harvest, train, measure; in SAELens' file format."""

from __future__ import annotations

from interp.saes.activity import Activity as Activity
from interp.saes.activity import activity as activity
from interp.saes.attribution import Agreement as Agreement
from interp.saes.attribution import Reading as Reading
from interp.saes.attribution import agreement as agreement
from interp.saes.attribution import reading as reading
from interp.saes.attribution import top_features as top_features
from interp.saes.attribution import weight_share as weight_share
from interp.saes.batches import Batches as Batches
from interp.saes.config import SAEConfig as SAEConfig
from interp.saes.core import SAE as SAE
from interp.saes.core import by_token as by_token
from interp.saes.dashboard import FeatureSource as FeatureSource
from interp.saes.dashboard import feature_index as feature_index
from interp.saes.dashboard import feature_record as feature_record
from interp.saes.dashboard import feature_source as feature_source
from interp.saes.dfa import Attribution as Attribution
from interp.saes.dfa import TextHeads as TextHeads
from interp.saes.dfa import attribute as attribute
from interp.saes.dfa import attribution_map as attribution_map
from interp.saes.dfa import firing as firing
from interp.saes.dfa import text_heads as text_heads
from interp.saes.dfa import text_layers as text_layers
from interp.saes.dfa_recursive import recursive_dfa as recursive_dfa
from interp.saes.evaluation import Evaluation as Evaluation
from interp.saes.evaluation import evaluate as evaluate
from interp.saes.families import FamilyRules as FamilyRules
from interp.saes.feature_study import feature_attribution as feature_attribution
from interp.saes.files import load as load
from interp.saes.files import load_density as load_density
from interp.saes.files import save as save
from interp.saes.harvest import HarvestPlan as HarvestPlan
from interp.saes.harvest import harvest as harvest
from interp.saes.harvest import z_of as z_of
from interp.saes.interventions import AblateFeatures as AblateFeatures
from interp.saes.interventions import ClampFeatures as ClampFeatures
from interp.saes.interventions import SpliceSAE as SpliceSAE
from interp.saes.interventions import SteerFeatures as SteerFeatures
from interp.saes.ioi_position import ioi_features as ioi_features
from interp.saes.ioi_position import ioi_position as ioi_position
from interp.saes.log import Report as Report
from interp.saes.log import Reporting as Reporting
from interp.saes.log import read_log as read_log
from interp.saes.long_prefix import long_prefix as long_prefix
from interp.saes.metrics import Reconstruction as Reconstruction
from interp.saes.metrics import density_histogram as density_histogram
from interp.saes.metrics import reconstruction as reconstruction
from interp.saes.model_losses import LossMeter as LossMeter
from interp.saes.neuronpedia import neuronpedia_json as neuronpedia_json
from interp.saes.planted import Planted as Planted
from interp.saes.planted import planted as planted
from interp.saes.polysemanticity import polysemanticity as polysemanticity
from interp.saes.prefix_on_text import prefix_on_text as prefix_on_text
from interp.saes.probing import TASKS as TASKS
from interp.saes.probing import sparse_probing as sparse_probing
from interp.saes.recipe import JumpReLURecipe as JumpReLURecipe
from interp.saes.recipe import Recipe as Recipe
from interp.saes.splice import ReplaceOutputs as ReplaceOutputs
from interp.saes.store import Store as Store
from interp.saes.stream import Stream as Stream
from interp.saes.training import train as train

__all__ = [
    "SAE",
    "TASKS",
    "AblateFeatures",
    "Activity",
    "Agreement",
    "Attribution",
    "Batches",
    "ClampFeatures",
    "Evaluation",
    "FamilyRules",
    "FeatureSource",
    "HarvestPlan",
    "JumpReLURecipe",
    "LossMeter",
    "Planted",
    "Reading",
    "Recipe",
    "Reconstruction",
    "ReplaceOutputs",
    "Report",
    "Reporting",
    "SAEConfig",
    "SpliceSAE",
    "SteerFeatures",
    "Store",
    "Stream",
    "TextHeads",
    "activity",
    "agreement",
    "attribute",
    "attribution_map",
    "by_token",
    "density_histogram",
    "evaluate",
    "feature_attribution",
    "feature_index",
    "feature_record",
    "feature_source",
    "firing",
    "harvest",
    "ioi_features",
    "ioi_position",
    "load",
    "load_density",
    "long_prefix",
    "neuronpedia_json",
    "planted",
    "polysemanticity",
    "prefix_on_text",
    "read_log",
    "reading",
    "reconstruction",
    "recursive_dfa",
    "save",
    "sparse_probing",
    "text_heads",
    "text_layers",
    "top_features",
    "train",
    "weight_share",
    "z_of",
]
