"""Hyper-parameter search: a method's declared settings, tried as ordinary stages. The only user of Optuna.

space        what is searched: declared ranges, narrowed or widened by a file
objectives   what is maximised or minimised, and how close students are to the teacher on synthetic images
options      how a search is done, as typed
preparation  everything that is known before the first try, checked
tune         the story: prepare, search, write, measure
search       the driver: asks, runs stages, follows reports, tells
studies      Optuna's studies: who may join them, which trials count
storage      where studies are kept: a journal in the store, or a database
ownership    which process runs which trial, and whether it still lives
outcome      best settings, tables and plots
view         what a person sees meanwhile
"""
