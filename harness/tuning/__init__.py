"""Hyper-parameter search: a method's declared settings, tried as ordinary stages. The only user of Optuna.

space       what is searched: declared ranges, narrowed or widened by a file
objectives  what is maximised or minimised, and the data-free agreement on synthetic images
studies     Optuna's storage, who holds which trial, what a dead process left behind
search      the driver: asks, runs stages, follows reports, tells
outcome     best settings, tables and plots
view        what a person sees meanwhile
"""
