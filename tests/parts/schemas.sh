#!/usr/bin/env bash
# schemas.sh: the schemas of others that calve must map, as descriptor sets (*.binpb, imports included), from the
# packages in which their owners publish them; and the messages of Protobuf's conformance suite, compiled by protoc
# because they are in editions.
#
# Installs once into ${CALVE_PARTS:-$HOME/.cache/calve-parts}/schemas and prints that folder on stdout; everything else
# goes to stderr. Versions are pinned: the tests name messages of these files.
. "$(dirname "$0")/lib.sh"

requirements="googleapis-common-protos==1.76.0
grpcio-tools==1.85.1
gtfs-realtime-bindings==3.0.0
opentelemetry-proto==1.45.2
protobuf==7.36.2
xds-protos==1.85.0"

home="$PARTS/schemas"
python="$home/venv/bin/python"
log="$home/install.log"

mkdir -p "$home"
# Test binaries may ask at the same time; one installs, the others wait for it.
exec 9>"$home/lock"
if command -v flock >/dev/null; then flock 9; fi

mark="$requirements $(cat "$0" "$HERE/conformance.sh" | cksum)"
if [ "$(cat "$home/installed" 2>/dev/null)" != "$mark" ]; then
    protos="$("$HERE/conformance.sh" protos)"
    python_env "$home" "$requirements"
    "$python" -m grpc_tools.protoc -I"$protos" -I"$("$python" -c 'import grpc_tools, os; print(os.path.join(os.path.dirname(grpc_tools.__file__), "_proto"))')" \
        --include_imports --descriptor_set_out="$home/conformance.binpb" \
        "$protos"/google/protobuf/test_messages_*.proto "$protos"/conformance/conformance.proto >"$log" 2>&1 \
        || die "protoc does not compile the conformance suite's messages: $(head -n 1 "$log"); see $log"
    "$python" - "$home" >"$log" 2>&1 <<'PY' || die "the packages hold other files than expected: $(tail -n 1 "$log"); see $log"
import importlib, sys
from google.protobuf import descriptor_pb2

SETS = {
    "opentelemetry": [
        "opentelemetry.proto.collector.trace.v1.trace_service_pb2",
        "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2",
        "opentelemetry.proto.collector.logs.v1.logs_service_pb2",
    ],
    "envoy": ["envoy.data.accesslog.v3.accesslog_pb2", "envoy.service.accesslog.v3.als_pb2"],
    "gtfs": ["google.transit.gtfs_realtime_pb2"],
    "googleapis": [
        *(f"google.type.{name}_pb2" for name in (
            "calendar_period color date datetime dayofweek decimal expr fraction interval latlng localized_text money"
            " month phone_number postal_address quaternion timeofday").split()),
        "google.rpc.status_pb2", "google.rpc.error_details_pb2", "google.rpc.context.attribute_context_pb2",
        "google.logging.type.http_request_pb2", "google.api.metric_pb2", "google.api.monitored_resource_pb2",
        "google.api.distribution_pb2", "google.longrunning.operations_pb2",
    ],
}

def add(file, files):
    if file.name not in files:
        for imported in file.dependencies:
            add(imported, files)
        files[file.name] = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(files[file.name])

for name, modules in SETS.items():
    files = {}
    for module in modules:
        add(importlib.import_module(module).DESCRIPTOR, files)
    with open(f"{sys.argv[1]}/{name}.binpb", "wb") as out:
        out.write(descriptor_pb2.FileDescriptorSet(file=files.values()).SerializeToString())
PY
    printf '%s' "$mark" >"$home/installed"
fi
echo "$home"
