defmodule Mlx.Weights.Quantized do
  @moduledoc """
  The parts of a quantized weight, as they are in files.

  ## Fields

    * `:weight` - integers of `:bits` bits, packed along the last axis to `u32`: of shape
      `{…, out, in * bits / 32}`
    * `:scales` - one for each `:group_size` values, of shape `{…, out, in / group_size}`
    * `:biases` - like the scales with `mode: :affine`, else `nil`
    * `:bits`, `:group_size`
    * `:mode` - `:affine`, where a value is its integer times its scale plus its bias, or
      `:mxfp4`, `:mxfp8` or `:nvfp4`

  """

  @enforce_keys [:weight, :scales, :bits, :group_size, :mode]
  defstruct [:weight, :scales, :biases, :bits, :group_size, :mode]

  @type mode :: :affine | :mxfp4 | :mxfp8 | :nvfp4

  @type t :: %__MODULE__{
          weight: Nx.Tensor.t(),
          scales: Nx.Tensor.t(),
          biases: Nx.Tensor.t() | nil,
          bits: pos_integer,
          group_size: pos_integer,
          mode: mode
        }

  @modes %{"affine" => :affine, "mxfp4" => :mxfp4, "mxfp8" => :mxfp8, "nvfp4" => :nvfp4}

  @doc false
  # Bits, group size and mode from a config or options, whose keys are strings.
  def settings(%{"bits" => bits, "group_size" => group_size} = settings) do
    mode = Map.get(@modes, Map.get(settings, "mode", "affine"))

    if bits in [2, 3, 4, 5, 6, 8] and group_size in [16, 32, 64, 128] and mode != nil do
      {:ok, %{bits: bits, group_size: group_size, mode: mode}}
    else
      :error
    end
  end

  def settings(_other), do: :error

  @doc false
  # Whether the shapes of parts fit each other.
  def fits?(weight, scales, biases, %{bits: bits, group_size: group_size, mode: mode}) do
    {leading, packed} = Enum.split(weight, -1)
    {leading_scales, groups} = Enum.split(scales, -1)

    leading == leading_scales and length(packed) == 1 and length(groups) == 1 and
      hd(packed) * 32 == hd(groups) * group_size * bits and
      biases == if(mode == :affine, do: scales)
  end
end
