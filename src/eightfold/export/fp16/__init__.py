"""FP16 graphs: conversion, emulation, range check and the search for layers that stay FP32."""
