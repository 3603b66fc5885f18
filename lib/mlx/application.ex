defmodule Mlx.Application do
  @moduledoc false
  use Application

  @impl true
  def start(_type, _args) do
    Mlx.Config.apply!()
    children = [Mlx.Compiler.Cache, Mlx.Garbage]
    Supervisor.start_link(children, strategy: :one_for_one, name: Mlx.Supervisor)
  end
end
