"""Hosts: how programs are read into structures, and how decisions are carried out on them."""
