defmodule Mlx.Weights.Packed do
  @moduledoc false

  # Weights whose parts a file has under names of their own, as mlx-lm writes them.

  alias Mlx.Quantization

  @modes Map.new(Quantization.formats(), fn {mode, _, _} -> {Atom.to_string(mode), mode} end)

  @doc """
  Bits, group size and mode from a config or options, whose keys are strings.
  """
  def settings(%{"bits" => bits, "group_size" => group_size} = settings) do
    mode = Map.get(@modes, Map.get(settings, "mode", "affine"))

    if {mode, bits, group_size} in Quantization.formats(),
      do: {:ok, %{bits: bits, group_size: group_size, mode: mode}},
      else: :error
  end

  def settings(_other), do: :error

  @doc """
  Whether the entries of parts fit each other.
  """
  def fits?(weight, scales, biases, %{bits: bits, group_size: group_size, mode: mode}) do
    {leading, words} = Enum.split(weight.shape, -1)
    {leading_scales, groups} = Enum.split(scales.shape, -1)

    leading != [] and leading == leading_scales and
      hd(words) * 32 == hd(groups) * group_size * bits and
      rem(hd(groups) * group_size, 32) == 0 and biases?(mode, scales, biases)
  end

  defp biases?(:affine, %{type: type, shape: shape}, %{type: type, shape: shape}),
    do: type in [{:f, 32}, {:f, 16}, {:bf, 16}]

  defp biases?(:affine, _scales, _biases), do: false
  defp biases?(_mode, %{type: type}, nil), do: type == {:u, 8}

  @doc """
  The tensor of loaded parts, whose settings these are. A `type` of `nil` is that of the file.
  """
  def tensor(packed, scales, biases, settings, type) do
    opts = settings |> Map.take([:bits, :group_size, :mode]) |> Map.to_list()
    opts = if type, do: [type: type] ++ opts, else: opts
    parts = if biases, do: {packed, scales, biases}, else: {packed, scales}
    Quantization.from_parts(parts, opts)
  end
end
