defmodule Mlx.FastTest do
  use ExUnit.Case, async: true
  import Mlx.Oracle
  import Mlx.Samples

  doctest Mlx.Fast

  @types [:f32, :f16, :bf16, :f64]

  # Halves are rounded before the weight, too.
  @close [ulps: 8, scale: 1.0, signed_zero: false]

  describe "rms_norm" do
    for type <- @types, shape <- [{5}, {3, 1}, {2, 3, 7}, {1, 2, 3, 600}] do
      test "of #{type}#{inspect(shape)}" do
        x = waves(unquote(type), unquote(Macro.escape(shape)))
        weight = waves(unquote(type), {elem(x.shape, tuple_size(x.shape) - 1)})
        assert_same(&Mlx.Fast.rms_norm(&1, &2), [x, weight], @close)
        assert_same(&Mlx.Fast.rms_norm(&1, nil, eps: 0.25), [x], @close)
      end
    end

    test "gives the type of both" do
      for {a, b, out} <- [{:bf16, :f32, :f32}, {:s32, :f32, :f32}, {:s8, :s8, :f32}] do
        assert Mlx.Fast.rms_norm(small(a), sample(b, {2})).type ==
                 Nx.Type.normalize!(out)
      end
    end

    test "keeps names and vectorized axes" do
      x = Nx.vectorize(waves(:f32, {2, 3, 4}, names: [:v, :a, :b]), :v)
      assert_same(&Mlx.Fast.rms_norm(&1, &2), [x, waves(:f32, {4}, names: [:a])], @close)
    end

    test "refuses what has no meaning" do
      x = waves(:f32, {2, 3})

      for {weight, opts, message} <- [
            {waves(:f32, {2}), [], "takes a weight of shape {3}, got: f32{2}"},
            {waves(:f32, {1, 3}), [], "a weight"},
            {Nx.vectorize(waves(:f32, {2, 3}), :v), [], "no vectorized weight"},
            {nil, [epsilon: 1], "unknown keys"},
            {nil, [eps: :small], "takes a number as :eps"},
            {waves(:c64, {3}), [], "no complex numbers"}
          ] do
        assert_raise ArgumentError, ~r/#{Regex.escape(message)}/, fn ->
          Mlx.Fast.rms_norm(x, weight, opts)
        end
      end

      assert_raise ArgumentError, ~r/at least 1 axes/, fn -> Mlx.Fast.rms_norm(1.0, nil) end
    end
  end

  # Numbers without a pattern, between -2 and 2.
  defp waves(type, shape, opts \\ []) do
    opts = [backend: Nx.BinaryBackend] ++ opts

    shape
    |> Nx.iota([type: :f32] ++ opts)
    |> Nx.multiply(1.7)
    |> Nx.sin()
    |> Nx.multiply(2)
    |> Nx.as_type(type)
  end
end
