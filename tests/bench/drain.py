"""A subscriber in a process of its own that takes everything and does nothing: the other end of the raw send."""

import sys

import zmq

context = zmq.Context()
socket = context.socket(zmq.SUB)
socket.setsockopt(zmq.SUBSCRIBE, b"")
port = socket.bind_to_random_port("tcp://127.0.0.1")
sys.stdout.write(f"{port}\n")
sys.stdout.flush()
while True:
    socket.recv_multipart()
