defmodule Mlx.GradientCases.Fast do
  @moduledoc false

  # Differences are those of the rows, which are there for f32 only.

  import Mlx.Samples, only: [tensor: 2]
  alias Mlx.Fast

  @options [
    types: [:f64, :f32],
    step: 2.0 ** -6,
    close: [ulps: 256, scale: 4.0, signed_zero: false],
    close_f64: [ulps: 2 ** 16, scale: 4.0, signed_zero: false]
  ]

  @attention [
    {"", []},
    {"that is causal", [causal: true]},
    {"with a scale", [scale: 0.25]},
    {"with lengths", [lengths: 2]},
    {"at a position", [causal: true, position: 0]}
  ]

  def all, do: norms() ++ ropes() ++ attentions() ++ others()

  defp norms do
    [
      row(Fast.RMSNorm, "", &Fast.rms_norm(&1, nil), [{2, 3, 4}]),
      row(Fast.RMSNorm, "with a weight", &Fast.rms_norm/2, [{2, 3, 4}, {4}]),
      row(Fast.LayerNorm, "", &Fast.layer_norm(&1, nil, nil), [{3, 4}]),
      row(Fast.LayerNorm, "with both", &Fast.layer_norm/3, [{3, 4}, {4}, {4}]),
      row(Fast.LayerNorm, "with a bias", &Fast.layer_norm(&1, nil, &2), [{3, 4}, {4}])
    ]
  end

  defp ropes do
    for {description, position, opts} <- [
          {"", 3, []},
          {"that is traditional", 3, [traditional: true]},
          {"of a part", 3, [dims: 2, scale: 0.5]},
          {"for each of a batch", tensor([0, 5], :s32), []}
        ] do
      row(Fast.RoPE, description, &Fast.rope(&1, position, opts), [{2, 1, 2, 4}])
    end ++
      [
        row(Fast.RoPE, "with frequencies", &Fast.rope(&1, 2, frequencies: &2), [{2, 2, 4}, {2}])
      ]
  end

  defp attentions do
    shapes = [{1, 2, 2, 4}, {1, 1, 3, 4}, {1, 1, 3, 2}]

    for {description, opts} <- @attention do
      fun = &Fast.scaled_dot_product_attention(&1, &2, &3, opts)
      row(Fast.Attention, description, fun, shapes)
    end ++
      [
        row(
          Fast.Attention,
          "from a position",
          &Fast.scaled_dot_product_attention(&1, &2, &3, causal: true, position: tensor(1, :s32)),
          shapes
        ),
        row(
          Fast.Attention,
          "with a mask and sinks",
          &Fast.scaled_dot_product_attention(&1, &2, &3, mask: &4, sinks: &5),
          shapes ++ [{2, 3}, {2}]
        )
      ]
  end

  defp others do
    [
      row(Fast.Softmax, "", &Fast.softmax/1, [{2, 5}]),
      row(Fast.Softmax, "along the first axis", &Fast.softmax(&1, axis: 0), [{3, 2}]),
      row(Fast.SwiGLU, "", &Fast.swiglu/2, [{2, 3}, {2, 3}]),
      row(Fast.GELU, "", &Fast.gelu/1, [{2, 3}]),
      row(Fast.GELU, "of negative numbers", &Fast.gelu(Nx.negate(&1)), [{2, 3}]),
      row(Fast.GELU, "by tanh", &Fast.gelu(&1, approximate: :tanh), [{2, 3}]),
      row(Fast.GELU, "by sigmoid", &Fast.gelu(&1, approximate: :sigmoid), [{2, 3}]),
      row(:put_slice, "in a cache", &Fast.update_cache(&1, &2, 1), [{1, 4, 2}, {1, 2, 2}]),
      row(Fast.Cache, "", &Fast.update_cache(&1, &2, tensor(1, :s32)), [{1, 4, 2}, {1, 2, 2}]),
      row(
        :indexed_put,
        "in a cache, for each of a batch",
        &Fast.update_cache(&1, &2, tensor([0, 2], :s32)),
        [{2, 4, 2}, {2, 2, 2}]
      ),
      row(:dot, "in einsum", &Fast.einsum("ij,kj,kk->ik", [&1, &2, &3]), [{2, 3}, {2, 3}, {2, 2}])
    ]
  end

  defp row(op, description, fun, shapes) do
    args = for {shape, at} <- Enum.with_index(shapes), do: waves(shape, at)
    {{op, description}, fun, args, @options}
  end

  # Numbers between 0.25 and 1.75.
  defp waves(shape, at) do
    Nx.iota(shape, type: :f32, backend: Nx.BinaryBackend)
    |> Nx.add(at)
    |> Nx.multiply(1.7)
    |> Nx.sin()
    |> Nx.multiply(0.75)
    |> Nx.add(1)
  end
end
