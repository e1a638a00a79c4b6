"""What a report says beyond the leaderboard: intervals, ties, verdicts, charts, and the page itself.

Works on records and boards alone; reads no store and knows nothing about suites' plans.
"""
