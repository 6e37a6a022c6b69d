from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Key(_message.Message):
    __slots__ = ("type", "tenant", "namespace", "name")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    type: str
    tenant: str
    namespace: str
    name: str
    def __init__(self, type: _Optional[str] = ..., tenant: _Optional[str] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...

class Object(_message.Message):
    __slots__ = ("key", "labels", "annotations", "body", "revision")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class AnnotationsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    KEY_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ANNOTATIONS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    key: Key
    labels: _containers.ScalarMap[str, str]
    annotations: _containers.ScalarMap[str, str]
    body: str
    revision: int
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., annotations: _Optional[_Mapping[str, str]] = ..., body: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class Actor(_message.Message):
    __slots__ = ("role", "tenant", "namespace")
    class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ROLE_UNSPECIFIED: _ClassVar[Actor.Role]
        ROLE_SYSTEM: _ClassVar[Actor.Role]
        ROLE_ADMIN: _ClassVar[Actor.Role]
        ROLE_TENANT_ADMIN: _ClassVar[Actor.Role]
        ROLE_NAMESPACE_ADMIN: _ClassVar[Actor.Role]
    ROLE_UNSPECIFIED: Actor.Role
    ROLE_SYSTEM: Actor.Role
    ROLE_ADMIN: Actor.Role
    ROLE_TENANT_ADMIN: Actor.Role
    ROLE_NAMESPACE_ADMIN: Actor.Role
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    role: Actor.Role
    tenant: str
    namespace: str
    def __init__(self, role: _Optional[_Union[Actor.Role, str]] = ..., tenant: _Optional[str] = ..., namespace: _Optional[str] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("type", "tenant", "namespace", "labels")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    type: str
    tenant: str
    namespace: str
    labels: str
    def __init__(self, type: _Optional[str] = ..., tenant: _Optional[str] = ..., namespace: _Optional[str] = ..., labels: _Optional[str] = ...) -> None: ...

class VersionRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class VersionReply(_message.Message):
    __slots__ = ("version",)
    VERSION_FIELD_NUMBER: _ClassVar[int]
    version: str
    def __init__(self, version: _Optional[str] = ...) -> None: ...

class UidRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UidReply(_message.Message):
    __slots__ = ("uid",)
    UID_FIELD_NUMBER: _ClassVar[int]
    uid: int
    def __init__(self, uid: _Optional[int] = ...) -> None: ...

class GetRequest(_message.Message):
    __slots__ = ("key",)
    KEY_FIELD_NUMBER: _ClassVar[int]
    key: Key
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ("selection",)
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    selection: Selection
    def __init__(self, selection: _Optional[_Union[Selection, _Mapping]] = ...) -> None: ...

class ListPart(_message.Message):
    __slots__ = ("objects", "revision")
    OBJECTS_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    objects: _containers.RepeatedCompositeFieldContainer[Object]
    revision: int
    def __init__(self, objects: _Optional[_Iterable[_Union[Object, _Mapping]]] = ..., revision: _Optional[int] = ...) -> None: ...

class WatchRequest(_message.Message):
    __slots__ = ("selection", "after")
    SELECTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    selection: Selection
    after: int
    def __init__(self, selection: _Optional[_Union[Selection, _Mapping]] = ..., after: _Optional[int] = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("put", "deleted")
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    put: Object
    deleted: Key
    def __init__(self, put: _Optional[_Union[Object, _Mapping]] = ..., deleted: _Optional[_Union[Key, _Mapping]] = ...) -> None: ...

class Batch(_message.Message):
    __slots__ = ("revision", "changes")
    REVISION_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    revision: int
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    def __init__(self, revision: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ...) -> None: ...

class WriteRequest(_message.Message):
    __slots__ = ("object", "who", "lease")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    object: Object
    who: Actor
    lease: int
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ..., who: _Optional[_Union[Actor, _Mapping]] = ..., lease: _Optional[int] = ...) -> None: ...

class UpdateRequest(_message.Message):
    __slots__ = ("object", "who", "lease", "expected", "force")
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    FORCE_FIELD_NUMBER: _ClassVar[int]
    object: Object
    who: Actor
    lease: int
    expected: int
    force: bool
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ..., who: _Optional[_Union[Actor, _Mapping]] = ..., lease: _Optional[int] = ..., expected: _Optional[int] = ..., force: _Optional[bool] = ...) -> None: ...

class ApplyReply(_message.Message):
    __slots__ = ("object", "outcome")
    class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OUTCOME_UNSPECIFIED: _ClassVar[ApplyReply.Outcome]
        OUTCOME_CREATED: _ClassVar[ApplyReply.Outcome]
        OUTCOME_UPDATED: _ClassVar[ApplyReply.Outcome]
        OUTCOME_UNCHANGED: _ClassVar[ApplyReply.Outcome]
    OUTCOME_UNSPECIFIED: ApplyReply.Outcome
    OUTCOME_CREATED: ApplyReply.Outcome
    OUTCOME_UPDATED: ApplyReply.Outcome
    OUTCOME_UNCHANGED: ApplyReply.Outcome
    OBJECT_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    object: Object
    outcome: ApplyReply.Outcome
    def __init__(self, object: _Optional[_Union[Object, _Mapping]] = ..., outcome: _Optional[_Union[ApplyReply.Outcome, str]] = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("key", "who", "expected", "cascade")
    KEY_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_FIELD_NUMBER: _ClassVar[int]
    CASCADE_FIELD_NUMBER: _ClassVar[int]
    key: Key
    who: Actor
    expected: int
    cascade: bool
    def __init__(self, key: _Optional[_Union[Key, _Mapping]] = ..., who: _Optional[_Union[Actor, _Mapping]] = ..., expected: _Optional[int] = ..., cascade: _Optional[bool] = ...) -> None: ...
