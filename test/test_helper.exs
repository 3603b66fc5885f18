# A folder of packages, which MLX_DEPS names, may be without Axon.
without_axon =
  if Code.ensure_loaded?(Axon) do
    []
  else
    IO.puts("Left out: test/mlx/axon_test.exs, because Axon is not among the packages.")
    [:axon]
  end

ExUnit.start(exclude: [:soak | without_axon])
