# A folder of packages, which MLX_DEPS names, may be without Axon.
without_axon =
  if Code.ensure_loaded?(Axon) do
    []
  else
    IO.puts("Left out: test/mlx/axon_test.exs, because Axon is not among the packages.")
    [:axon]
  end

# They run for minutes, each as long as SOAK_SECONDS says.
IO.puts("Left out: tests tagged :soak, which take minutes; run them with mix test --only soak.")

# Tests share one stream, so that each may wait for what the others compute.
ExUnit.start(exclude: [:soak | without_axon], timeout: 300_000)
