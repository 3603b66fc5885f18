defmodule Mlx.Compiler.Program do
  @moduledoc false

  # Code that the engine runs as a whole, with its constants, which come after the
  # inputs and cross to the engine once.

  alias Mlx.{Dispatch, Graph, Native}

  # The code is there to be looked at. As a binary it is not copied whenever the program
  # is taken from the cache.
  @enforce_keys [:ref, :code, :nodes, :constants]
  defstruct [:ref, :code, :nodes, :constants]

  @doc """
  A program of `code`, whose last inputs are the nodes in `constants`.
  """
  def new(code, constants, settings) do
    refs = Enum.map(constants, &constant(&1, settings))
    program = Dispatch.ok!(Native.program_new(code, refs, settings.fuse))

    %__MODULE__{
      ref: program,
      code: :erlang.term_to_binary(code),
      nodes: Graph.count(code),
      constants: length(refs)
    }
  end

  defp constant(node, %{tensors: tensors, device: device}) do
    case Map.fetch(tensors, Graph.key(node)) do
      {:ok, tensor} -> Dispatch.ref(tensor, device)
      :error -> [node] |> Dispatch.submit([], device) |> hd()
    end
  end

  def run(%__MODULE__{ref: program}, refs, device, donated) do
    Dispatch.queue(device, &Native.program_run(&1, program, refs, donated))
  end

  # What stands in for a program that is watched.
  def run(run, refs, device, _donated) when is_function(run, 2), do: run.(refs, device)

  @doc """
  The number of inputs, the instructions, and the registers of the outputs.
  """
  def code(%__MODULE__{code: code}), do: :erlang.binary_to_term(code)
end
