"""What pickles of models may import, by framework: names, and classes of whole packages.

A class of a package is allowed by its form, ``CapitalLetters`` in a module of it: an object of it
is made without its constructor and gets its state, as pickle does by default. A constructor is
called where the class is listed for that as well: some evaluate text, open files, run programs.
Functions are allowed by name alone. ``NEVER`` is stronger than the rest. Where code is pickled by
value (cloudpickle, the everyday way of a PythonModel), that code is the model's own and may mention
any name: it is called where the model is served, and in the sandbox. What the pickle itself calls
is held to the list.

Each framework's part is held against really logged models by tests/gates/test_pickles_of_models.py.
"""

from __future__ import annotations

import re
from typing import Any

from adroit_publish.gates.pickles.inventory import CLOUDPICKLE, Name

_NAMES: dict[str, dict[str, str]] = {
    "python": {
        "builtins": "bool bytearray bytes complex dict float frozenset int list object set slice "
        "range str tuple type Ellipsis NotImplemented super property staticmethod classmethod "
        "Exception ValueError TypeError KeyError RuntimeError NotImplementedError BaseException "
        "getattr enumerate zip len min max sum sorted abs round any all print repr",
        "_codecs": "encode",
        "abc": "ABCMeta ABC abstractmethod",
        "array": "array _array_reconstructor",
        "_collections": "_tuplegetter deque",
        "collections": "Counter OrderedDict defaultdict deque ChainMap UserDict UserList",
        "copyreg": "_reconstructor __newobj__ __newobj_ex__",
        "dataclasses": "Field _DataclassParams _FIELD_BASE _HAS_DEFAULT_FACTORY_CLASS "
        "_MISSING_TYPE",
        "datetime": "date datetime time timedelta timezone",
        "decimal": "Decimal",
        "enum": "Enum IntEnum StrEnum Flag EnumMeta EnumType",
        "fractions": "Fraction",
        "functools": "partial reduce",
        "_functools": "partial reduce",
        "ipaddress": "IPv4Address IPv6Address IPv4Network IPv6Network",
        "logging": "getLogger Logger",
        "math": "sqrt log log2 log10 log1p exp expm1 floor ceil pow sin cos tan tanh isnan",
        "operator": "itemgetter or_ add sub mul truediv",
        "_operator": "itemgetter or_ getitem add sub mul truediv",
        "pathlib": "Path PosixPath PurePath PurePosixPath WindowsPath PureWindowsPath",
        "random": "Random",
        "re": "_compile Pattern",
        "string": "Template Formatter",
        "types": "CodeType GenericAlias MappingProxyType MethodType ModuleType NoneType "
        "SimpleNamespace UnionType",
        "typing": "Any Callable Dict ForwardRef Generic List Literal NamedTuple Optional Protocol "
        "Sequence Set Tuple Type TypeVar TypedDict Union _GenericAlias _UnionGenericAlias",
        "uuid": "UUID SafeUUID",
        "weakref": "WeakKeyDictionary WeakSet WeakValueDictionary",
        "zoneinfo": "ZoneInfo ZoneInfo._unpickle",
    },
    "cloudpickle": dict.fromkeys(
        CLOUDPICKLE,
        "_builtin_type _cell_set _class_setstate _decompose_typevar _fill_function "
        "_get_dataclass_field_type_sentinel "
        "_function_setstate _make_cell _make_dict_items _make_dict_keys _make_dict_values "
        "_make_empty_cell _make_function _make_skel_func _make_skeleton_class "
        "_make_skeleton_enum _make_typevar _rehydrate_skeleton_class dynamic_subimport subimport "
        "_empty_cell_value _make_mappingproxy _lookup_class_or_track",
    ),
    "numpy": {
        **dict.fromkeys(
            ("numpy.core.multiarray", "numpy._core.multiarray"),
            "_reconstruct scalar ndarray dtype",
        ),
        **dict.fromkeys(("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer"),
        **dict.fromkeys(
            ("numpy.core._internal", "numpy._core._internal"),
            "_convert_to_stringdtype_kwargs",
        ),
        **dict.fromkeys(
            ("numpy.core", "numpy._core", "numpy.core._multiarray_umath"),
            "_ufunc_reconstruct _convert_to_stringdtype_kwargs",
        ),
        "numpy": "abs absolute all any arcsinh arctan argmax argmin argsort array asarray ascontig"
        "uousarray atleast_1d atleast_2d average bool bool_ ceil clip column_stack concatenate cos "
        "cosh datetime64 datetime_data deg2rad diff divide dot dtype exp expm1 expand_dims floor "
        "float16 float32 float64 float_ full hstack identity int8 int16 int32 int64 int_ intp "
        "isfinite isinf isnan log log10 log1p log2 logaddexp maximum mean median minimum multiply "
        "nan_to_num nanmax nanmean nanmedian nanmin nanstd nansum nanvar ndarray negative ones "
        "percentile power product quantile rad2deg ravel reciprocal recarray repeat reshape rint "
        "round sign sin sinh sqrt square squeeze stack std str_ subtract sum tan tanh tile "
        "timedelta64 transpose uint8 uint16 uint32 uint64 unique var vstack where zeros object_ "
        "void bytes_ complex64 complex128 longdouble longlong matrix generic number floating",
        "numpy.ma": "MaskedArray masked_array",
        "numpy.ma.core": "MaskedArray _mareconstruct MaskedConstant",
        "numpy.matrixlib.defmatrix": "matrix",
        "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
        "numpy.random.mtrand": "RandomState",
        "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
        "numpy.random._bit_generator": "SeedSequence",
        "numpy.rec": "recarray record",
    },
    "scipy": {
        "scipy.special._ufuncs": "expit logit erf gammaln xlogy",
        "scipy.special": "expit logit softmax erf",
        "scipy._lib.array_api_compat.numpy._aliases": "asarray",
    },
    "pandas": {
        "pandas._libs.internals": "_unpickle_block BlockPlacement BlockManager",
        "pandas._libs.arrays": "__pyx_unpickle_NDArrayBacked",
        "pandas._libs.tslibs.offsets": "__pyx_unpickle_BaseOffset",
        "pandas._libs.tslibs.timestamps": "_unpickle_timestamp",
        "pandas._libs.tslibs.timedeltas": "_timedelta_unpickle",
        "pandas._libs.tslibs.nattype": "_nat_unpickle",
        "pandas._libs.tslibs.period": "_unpickle_period",
        "pandas._libs.missing": "NAType",
        "pandas.core.indexes.base": "_new_Index Index",
        "pandas.core.indexes.interval": "_new_IntervalIndex",
        "pandas.core.indexes.datetimes": "_new_DatetimeIndex DatetimeIndex",
        "pandas.core.indexes.period": "_new_PeriodIndex PeriodIndex",
        "pandas.core.arrays.arrow.array": "ArrowExtensionArray",
        "pandas.core.internals.managers": "BlockManager SingleBlockManager",
        "pyarrow.lib": "type_for_alias _restore_array py_buffer",
    },
    "sklearn": {
        "sklearn._loss._loss": "__pyx_unpickle_CyLossFunction",
        "sklearn.metrics._dist_metrics": "newObj",
        "sklearn.neighbors._kd_tree": "newObj",
        "sklearn.neighbors._ball_tree": "newObj",
        "sklearn.cluster._kmeans": "_kmeans_single_lloyd _kmeans_single_elkan",
        "sklearn.feature_selection._univariate_selection": "f_classif f_regression chi2",
        "sklearn.feature_selection._mutual_info": "mutual_info_classif mutual_info_regression",
        "sklearn.metrics._classification": "accuracy_score f1_score log_loss",
        "sklearn.metrics._regression": "r2_score mean_squared_error",
        "sklearn.metrics._ranking": "roc_auc_score",
        "sklearn.metrics._scorer": "_passthrough_scorer",
        "sklearn.preprocessing._function_transformer": "_identity",
        "sklearn.metrics.cluster._supervised": "adjusted_rand_score",
    },
    "joblib": {"joblib.numpy_pickle": "NumpyArrayWrapper"},
    "statsmodels": {
        "statsmodels.formula._manager": "FormulaManager",
        "patsy.design_info": "DesignInfo",
    },
    "torch": {
        "torch": "Size device dtype Tensor float16 float32 float64 bfloat16 int8 int16 int32 int64 "
        "uint8 bool complex64 complex128 float int long double half strided sparse_coo relu tanh "
        "sigmoid softmax",
        "torch._tensor": "_rebuild_from_type_v2 Tensor",
        "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_tensor_v3 _rebuild_parameter "
        "_rebuild_parameter_with_state _rebuild_qtensor _rebuild_sparse_tensor "
        "_rebuild_device_tensor_from_numpy _rebuild_meta_tensor_no_storage",
        "torch.storage": "UntypedStorage TypedStorage _load_from_bytes",
        "torch.serialization": "_get_layout",
        "torch.nn.functional": "relu gelu silu elu leaky_relu softmax log_softmax sigmoid tanh",
        "torch._C._nn": "gelu silu leaky_relu elu softplus",
        "torch.jit._pickle": "build_intlist build_tensorlist build_doublelist build_boollist",
    },
}
"""Names by framework and module."""

_CLASSES = {
    "numpy": r"numpy\.dtypes|numpy\.random(\._\w+)?",
    "scipy": r"scipy\.(sparse|stats|interpolate|spatial|optimize)(\._?\w+)*",
    "pandas": r"pandas(\.arrays)?|pandas\.(_libs|tseries|core\.(arrays|dtypes|indexes|internals))"
    r"(\._?\w+)*|pandas\.core\.(categorical|flags|frame|series)|pyarrow\.lib",
    "sklearn": r"sklearn(?!\.(datasets|externals|utils\._testing|tests))(\._?\w+)*",
    "lightgbm": r"lightgbm\.(basic|sklearn|callback|engine)",
    "xgboost": r"xgboost\.(core|sklearn|callback|training)",
    "catboost": r"_?catboost(\.core)?",
    "statsmodels": r"statsmodels(?!\.(datasets|tools\.web|sandbox))(\._?\w+)*",
    "formulas": r"patsy\.\w+|formulaic(\.\w+)*",
    "torch": r"torch\.(nn|optim)(\.\w+)*|torchvision\.models(\.\w+)*|__torch__(\.\w+)*",
    "prophet": r"prophet\.(forecaster|models|diagnostics)|cmdstanpy\.(compilation|model)",
    "further": r"(imblearn|category_encoders|lifelines|hdbscan|umap)(\._?\w+)*",
    "mlflow": r"mlflow\.(types|entities)(\.\w+)*|mlflow\.pyfunc\.(context|model)|"
    r"mlflow\.pyfunc\.utils\.data_validation|"
    r"mlflow\.models\.(model|resources|signature)",
    "pydantic": r"pydantic(?!\.(v1|deprecated))(\._?\w+)*|pydantic_core(\._?\w+)*|annotated_types",
}
"""Modules by framework whose classes are allowed, by their form."""

_CONSTRUCTORS = re.compile(
    r"numpy\.(dtypes|random(\._\w+)?)\.\w+|pandas(\.\w+)*\.\w+|pydantic_core\._pydantic_core\.\w+|"
    r"scipy\.spatial(\.\w+)*\.\w+|mlflow\.(types|entities)(\.\w+)*\.\w+|"
    r"sklearn(\.\w+)*\.(_loss|_sgd_fast|_weight_vector|_tree|_criterion|_splitter|_partitioner|"
    r"_quad_tree|_ball_tree|_kd_tree|_dist_metrics|_random|_fast_dict|link|loss|common)\.\w+|"
    r"statsmodels\.tsa(\.\w+)*\.[cdsz][A-Z]\w*|.*\.__pyx_unpickle_\w+"
)
"""Classes, of those, whose constructors are called with the arguments that the pickle has."""

_CLASS = re.compile(r"_*[A-Z]\w*|[cdsz][A-Z]\w*|[a-z]+_(array|matrix)|__pyx_unpickle_\w+")
_FORMULA_CALLS = {"C", "I", "np.log", "np.log1p", "np.log10", "np.exp", "np.sqrt", "np.abs"}
_STORAGE = re.compile(r"(?:\w+)Storage")
_NEVER_CLASSES = re.compile(
    r"Popen|\w*Process|\w*Pool\w*Executor|Pool|ThreadPool\w*|Thread|Timer|Excel\w*|HDFStore|"
    r"\w*Unpickler|\w*Loader|Memory|Parallel|\w*File|FileIO|TextIOWrapper|Temporary\w+"
)
_MODULES = {
    module: set(names.split()) for part in _NAMES.values() for module, names in part.items()
}
_PACKAGES = re.compile("|".join(f"(?:{pattern})" for pattern in _CLASSES.values()))

_NEVER = {
    "builtins": r"eval|exec|compile|__import__|breakpoint|execfile|open|input",
    "os": r"system|popen\w*|exec\w+|spawn\w+|posix_spawn\w*|fork\w*|startfile|putenv",
    "subprocess": r".*",
    "pty": r".*",
    "code": r".*",
    "codeop": r".*",
    "runpy": r".*",
    "ctypes": r".*",
    "pdb": r".*",
    "bdb": r".*",
    "timeit": r".*",
    "cProfile": r".*",
    "profile": r".*",
    "trace": r".*",
    "commands": r".*",
    "webbrowser": r".*",
    "pip": r".*",
    "marshal": r"loads?",
    "shutil": r"rmtree|move",
    "types": r"FunctionType",
    "numpy.f2py": r".*",
    "numpy.testing": r".*",
    "pandas": r"eval|(DataFrame\.)?(eval|query)",
    "pandas.core.frame": r"DataFrame\.(eval|query)",
    "pandas.core.computation": r".*",
}
_SAME_AS_OS = ("posix", "nt")


def is_allowed(name: Name) -> bool:
    """Whether any pickle of a model may import this, and call it."""
    if name.name in _MODULES.get(name.module, ()):
        return True
    if name.module == "torch" and _STORAGE.fullmatch(name.name):
        return True
    is_class = _CLASS.fullmatch(name.name) and not _NEVER_CLASSES.fullmatch(name.name)
    return bool(is_class) and _PACKAGES.fullmatch(name.module) is not None


def may_be_constructed(name: Name) -> bool:
    """Whether what is allowed may be called with any arguments that are."""
    listed = name.name in _MODULES.get(name.module, ()) or name.module == "torch"
    return listed or _CONSTRUCTORS.fullmatch(str(name)) is not None


def is_plain_formula(state: Any) -> bool:
    """Whether the state of an object has no formula, or one of columns and arithmetic.

    statsmodels evaluates it when the object gets its state.
    """
    if state is None or isinstance(state, tuple):
        return True
    if not (isinstance(state, dict) and all(isinstance(key, str) for key in state)):
        return False
    formula = state.get("formula", "")
    if not isinstance(formula, str):
        return formula is None
    if re.search(r"[^\w\s~+\-*:/^(),.]|\)\s*\(", formula):
        return False
    calls = re.findall(r"([\w.]+)\s*\(", formula)
    attributes = re.findall(r"[A-Za-z_]\w*(?:\s*\.\s*\w+)+", formula)
    return set(calls) | set(attributes) <= _FORMULA_CALLS


def is_known(module: str) -> bool:
    """Whether any pickle of a model may import this module as such."""
    return module in _MODULES or _PACKAGES.fullmatch(module) is not None


def is_never_allowed(name: Name) -> bool:
    """Whether not even code that was pickled by value may mention this."""
    module = "os" if name.module in _SAME_AS_OS else name.module
    parents = [module.rsplit(".", cut)[0] for cut in range(module.count(".") + 1)]
    return any(re.fullmatch(_NEVER[parent], name.name) for parent in parents if parent in _NEVER)
