"""What ``benchmarks.asic`` is made of: the simulated fleet, clients in processes of their own, peers in environments of
their own.

Each client is measured alone: its process holds nothing but the client, and the CPU told is that process's.
"""
