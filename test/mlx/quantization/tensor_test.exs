defmodule Mlx.Quantization.TensorTest do
  use ExUnit.Case, async: true

  alias Mlx.Quantization
  alias Mlx.Quantization.Tensor

  setup do
    Nx.default_backend(Mlx.Backend)
    :ok
  end

  defp weights do
    x = Nx.sin(Nx.iota({8, 64}, type: :f16))

    for {mode, bits, size} <- Quantization.formats(), rem(64, size) == 0, axis <- [0, 1] do
      x = if axis == 0, do: Nx.transpose(x), else: x
      Quantization.quantize(x, mode: mode, bits: bits, group_size: size, axis: axis)
    end
  end

  defp assert_same(got, expected) do
    form = [:mode, :bits, :group_size, :type, :transposed]
    assert Map.take(got, form) == Map.take(expected, form)

    for {got, expected} <- Enum.zip(Tensor.parts(got), Tensor.parts(expected)) do
      assert {got.type, got.shape, Nx.to_binary(got)} ==
               {expected.type, expected.shape, Nx.to_binary(expected)}
    end
  end

  test "saving and loading keep the form" do
    saved = %{"weights" => weights() |> Enum.with_index() |> Map.new(fn {w, at} -> {at, w} end)}
    binary = saved |> Nx.serialize() |> IO.iodata_to_binary()
    loaded = Nx.deserialize(binary)
    for {at, weight} <- saved["weights"], do: assert_same(loaded["weights"][at], weight)
    # No more than the parts, and what says what they are.
    parts = for {_, w} <- saved["weights"], part <- Tensor.parts(w), do: Nx.byte_size(part)
    assert byte_size(binary) < Enum.sum(parts) + 1000 * map_size(saved["weights"])
  end

  test "the parts make it again" do
    for weight <- weights() do
      opts = weight |> Map.take([:mode, :bits, :group_size, :type, :transposed]) |> Map.to_list()
      assert_same(weight |> Quantization.to_parts() |> Quantization.from_parts(opts), weight)
    end
  end

  test "it moves between backends" do
    for weight <- weights() do
      copy = Nx.backend_copy(weight, Nx.BinaryBackend)
      assert %Tensor{packed: %{data: %Nx.BinaryBackend{}}} = copy
      assert_same(copy, weight)
      dense = Nx.with_default_backend(Nx.BinaryBackend, fn -> Quantization.dequantize(copy) end)
      assert %Nx.BinaryBackend{} = dense.data
      assert_unpacked(Quantization.dequantize(weight), dense)
      assert_same(Nx.backend_transfer(copy, Mlx.Backend), weight)
    end
  end

  # A GPU rounds once where others do twice.
  defp assert_unpacked(got, expected) do
    if Mlx.TestDevice.device() == :gpu,
      do: Mlx.Oracle.assert_equivalent(got, expected, ulps: 1, scale: 2.0),
      else: assert(Nx.to_binary(got) == Nx.to_binary(expected))
  end

  test "templates keep the form and lose the parts" do
    for weight <- weights() do
      template = Nx.to_template(weight)
      assert %Tensor{packed: %{data: %Nx.TemplateBackend{}}} = template
      assert Tensor.shape(template) == Tensor.shape(weight)
      assert template.transposed == weight.transposed
    end
  end

  test "it is printed with what its parts mean" do
    weight = Quantization.quantize(Nx.iota({2, 64}, type: :f32), bits: 3)
    assert inspect(weight) =~ "f32[2][64] (affine, 3 bits, groups of 64)"
    assert inspect(Nx.to_template(weight)) =~ "f32[2][64] (affine, 3 bits, groups of 64)"
  end

  test "only the parts are held" do
    dense = Mlx.eval(Nx.iota({2048, 1024}, type: :f32))
    weight = Mlx.eval(Quantization.quantize(dense))
    sizes = for part <- Tensor.parts(weight), do: Nx.byte_size(part)
    assert Enum.sum(sizes) == div(Nx.byte_size(dense) * 10, 64)
  end
end
