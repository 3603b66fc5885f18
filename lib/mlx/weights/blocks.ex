defmodule Mlx.Weights.Blocks do
  @moduledoc false

  # Weights that are quantized in blocks of 32, as GGUF has them: a half-precision scale, for
  # q4_1 a least value, and the integers. MLX has the integers in words apart from the scales;
  # no value changes.

  alias Mlx.Weights.{Packed, Source}

  # Those of q4_0 mean what is 8 less; those of q8_0 are signed, and become 128 more.
  @kinds %{
    q4_0: %{size: 18, bits: 4, integers: :nibbles, bias: {:times, -8}},
    q4_1: %{size: 20, bits: 4, integers: :nibbles, bias: {:at, 2}},
    q8_0: %{size: 34, bits: 8, integers: :bytes, bias: {:times, -128}}
  }

  def kind?(kind), do: is_map_key(@kinds, kind)

  def quantization(kind), do: %{bits: @kinds[kind].bits, group_size: 32, mode: :affine}

  @doc """
  A quantized weight, with scales and biases of a type.
  """
  def load(kind, entry, device, type) do
    %{size: size, integers: integers, bias: bias} = @kinds[kind]
    %{bits: bits} = settings = quantization(kind)
    {leading, [last]} = Enum.split(entry.shape, -1)
    words = Nx.template(List.to_tuple(leading ++ [div(last * bits, 32)]), :u32)
    numbers = Nx.template(List.to_tuple(leading ++ [div(last, 32)]), :f16)

    field = fn template, field ->
      opts = [blocks: %{size: size, field: field}]
      Source.load(entry.source, entry.offset, template, device, opts)
    end

    scales = field.(numbers, 0)

    biases = bias |> biases(scales, &field.(numbers, &1)) |> Nx.as_type(type)
    Packed.tensor(field.(words, integers), Nx.as_type(scales, type), biases, settings, type)
  end

  defp biases({:at, at}, _scales, number), do: number.(at)

  # The product of halves may be beyond them.
  defp biases({:times, factor}, scales, _number) do
    Nx.multiply(Nx.as_type(scales, :f32), Nx.tensor(factor, type: :f32, backend: backend(scales)))
  end

  defp backend(%{data: %Mlx.Backend{device: device}}), do: {Mlx.Backend, device: device}
end
