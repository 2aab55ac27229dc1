"""What may go wrong while a model is calibrated, run, exported or asked from afar."""

from __future__ import annotations

from robustzs.errors.base import RobustZSError


class CalibrationError(RobustZSError):
    """Something is wrong with a calibration."""

    code = "calibration"


class CalibrationMismatchError(CalibrationError):
    """The calibration was made for another model, tree, prompt or strategy."""

    code = "calibration-mismatch"


class InsufficientCalibrationDataError(CalibrationError):
    """Too few samples for the guarantee that was asked for."""

    code = "calibration-insufficient"


class BackendError(RobustZSError):
    """The inference engine could not do its work."""

    code = "backend"


class ProviderUnavailableError(BackendError):
    """The device that was asked for is not the one that was got."""

    code = "provider-unavailable"


class BackendInputError(BackendError):
    """Wrong dtype, shape or range at the model's boundary."""

    code = "backend-input"


class InferenceError(BackendError):
    """The model ran and failed."""

    code = "inference"


class BackendUnavailableError(BackendError):
    """No server that could run the model answers; another time one may."""

    code = "backend-unavailable"


class BackendOverloadedError(BackendUnavailableError):
    """The server that runs the model has too much waiting already."""

    code = "backend-overloaded"


class BackendTimeoutError(BackendUnavailableError):
    """The server that runs the model took too long."""

    code = "backend-timeout"


class BackendMismatchError(BackendUnavailableError):
    """The server runs other weights than the bundle's, or takes other tensors."""

    code = "backend-mismatch"


class ExportError(RobustZSError):
    """A model could not be exported."""

    code = "export"


class CheckpointFormatError(ExportError):
    """An unknown or unsafe checkpoint layout."""

    code = "checkpoint-format"


class ExportParityError(ExportError):
    """The exported graph does not give what torch gives."""

    code = "export-parity"


class ServerError(RobustZSError):
    """A remote service refused or failed.

    Args:
        message: What the service said.
        status: The HTTP status, or ``None`` when no response came.
        hint: What to do about it.
    """

    code = "server"

    def __init__(self, message: str, *, status: int | None = None, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status


class ChatUnavailableError(ServerError):
    """A chat model could not be reached or kept failing; another time it may answer."""

    code = "chat-unavailable"


class ChatRefusedError(ServerError):
    """A chat model refused this one request; asking again would not help."""

    code = "chat-refused"
