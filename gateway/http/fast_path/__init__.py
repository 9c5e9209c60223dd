"""Fast path: ordinary requests around aiohttp's parser and router.

Modules, in the order in which data flows:

    fast_path_connection  connection that tries the fast path before aiohttp, and runs handlers
    fast_path             reader of heads, and exchanges with these clients
"""
