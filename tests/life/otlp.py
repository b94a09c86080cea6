"""A collector: OTLP's own generated messages and services over grpcio, which nobody here wrote."""

import threading
import time
from concurrent import futures

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from waiting import wait_until

SIGNALS = ("logs", "traces")


class Collector:
    """Takes what comes, unless it is told otherwise: `codes[signal]` refuses, `slow` holds each answer up."""

    def __init__(self, port=0, credentials=None):
        self.port = port
        self.credentials = credentials
        self.codes = {}
        self.retry_after = None
        self.rejects = {}
        self.slow = 0.0
        self.attempts = dict.fromkeys(SIGNALS, 0)
        self.requests = {signal: [] for signal in SIGNALS}
        self.metadata = []
        self.lock = threading.Lock()
        self.server = None
        self.start()

    def start(self):
        assert self.server is None
        self.server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.so_reuseport", 0)])
        logs_service_pb2_grpc.add_LogsServiceServicer_to_server(Logs(self), self.server)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Traces(self), self.server)
        address = f"127.0.0.1:{self.port}"
        if self.credentials:
            self.port = self.server.add_secure_port(address, self.credentials)
        else:
            self.port = self.server.add_insecure_port(address)
        assert self.port, "the port is taken"
        self.server.start()

    def stop(self):
        if self.server:
            self.server.stop(0).wait()
            self.server = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        return f"https://localhost:{self.port}" if self.credentials else f"http://127.0.0.1:{self.port}"

    def take(self, signal, request, context, partial):
        with self.lock:
            self.attempts[signal] += 1
            self.metadata.append(dict(context.invocation_metadata()))
        time.sleep(self.slow)
        if code := self.codes.get(signal):
            details = []
            if self.retry_after is not None:
                retry = error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(nanos=self.retry_after))
                details = [packed(retry)]
            number = getattr(code_pb2, code)
            status = status_pb2.Status(code=number, message="the collector's own words", details=details)
            context.abort_with_status(rpc_status.to_status(status))
        with self.lock:
            self.requests[signal].append(request)
        return partial(self.rejects.get(signal, 0))

    def logs(self):
        """Every log record, with the resource that it came from."""
        with self.lock:
            requests = list(self.requests["logs"])
        return [
            record
            for request in requests
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    def spans(self):
        with self.lock:
            requests = list(self.requests["traces"])
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def until_logs(self, count, seconds=10):
        return wait_until(lambda: self.logs() if len(self.logs()) >= count else None, f"{count} log records", seconds)

    def span_of(self, decision_id, seconds=10):
        def found():
            return next((span for span in self.spans() if facts(span)["remit.decision_id"] == decision_id), None)

        return wait_until(found, f"the span of {decision_id}", seconds)


class Logs(logs_service_pb2_grpc.LogsServiceServicer):
    def __init__(self, collector):
        self.collector = collector

    def Export(self, request, context):
        def partial(rejected):
            answer = logs_service_pb2.ExportLogsServiceResponse()
            answer.partial_success.rejected_log_records = rejected
            return answer

        return self.collector.take("logs", request, context, partial)


class Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector):
        self.collector = collector

    def Export(self, request, context):
        def partial(rejected):
            answer = trace_service_pb2.ExportTraceServiceResponse()
            answer.partial_success.rejected_spans = rejected
            return answer

        return self.collector.take("traces", request, context, partial)


def packed(message):
    wrapped = any_pb2.Any()
    wrapped.Pack(message)
    return wrapped


def facts(record):
    """The attributes of a record or a resource."""
    return {pair.key: value_of(pair.value) for pair in record.attributes}


def value_of(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind)
