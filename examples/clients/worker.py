"""Processes the changes of a prefix, each at least once, over the socket of a node.

    pip install grpcio-tools
    python -m grpc_tools.protoc -I proto --python_out=. --grpc_python_out=. proto/api.proto
    PYTHONPATH=. python examples/clients/worker.py /orders/ [COUNT]

The node must be running (`lattice up`). Several workers share the changes.
"""

import os
import sys

import api_pb2
import api_pb2_grpc
import grpc

DATA = os.environ.get("LATTICE_DATA", os.path.expanduser("~/.local/share/lattice"))
CONSUMER = "worker-py"


def main():
    prefix = sys.argv[1].encode()
    count = int(sys.argv[2]) if len(sys.argv) > 2 else None
    # Without this option the path is sent as the authority, which HTTP/2 does not allow.
    options = [("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(f"unix:{DATA}/run/sock", options=options) as channel:
        lattice = api_pb2_grpc.LatticeStub(channel)
        # Creates the consumer once; an existing one with the same options is left as it is.
        start = api_pb2.ConsumerStart(beginning=True)
        # `from` is a keyword of Python, so it cannot be an argument name.
        request = {"consumer": CONSUMER, "prefixes": [prefix], "from": start}
        lattice.CreateConsumer(api_pb2.CreateConsumerRequest(**request))
        deliveries = lattice.Consume(api_pb2.ConsumeRequest(consumer=CONSUMER))
        for done, delivery in enumerate(deliveries, start=1):
            change = delivery.change
            # The part before the point is equal at every attempt: a key for idempotent work.
            work, attempt = delivery.id.split(".")
            print(work[:8], attempt, change.key.decode(), change.value.decode(), flush=True)
            answer = api_pb2.AnswerRequest(consumer=CONSUMER, deliveries=[delivery.id])
            answer.durable = True
            lattice.Ack(answer)
            if done == count:
                break


if __name__ == "__main__":
    try:
        main()
    except grpc.RpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
